"""A statement as one page to print: no script, no other host."""

from html import escape
from typing import Any

_STYLE = (
    "body{font:11pt serif;margin:2cm;max-width:50em}table{border-collapse:collapse;width:100%}"
    "td,th{padding:.15em .5em;border-bottom:1px solid #999;text-align:right}"
    "td:first-child,th:first-child{text-align:left}code{overflow-wrap:anywhere}"
)
_COLUMNS = {
    "owner": "Owner",
    "share": "Share",
    "share_low": "from",
    "share_high": "to",
    "earned": "Earned",
    "brought_forward": "Brought forward",
    "paid": "Paid",
    "carried_forward": "Carried forward",
}


def to_html(statement: dict[str, Any]) -> str:
    """The page."""
    terms, ledger, answers = statement["terms"], statement["ledger"], statement["answers"]
    head = "".join(f'<th scope="col">{title}</th>' for title in _COLUMNS.values())
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{_shown(line[name])}</td>" for name in _COLUMNS) + "</tr>"
        for line in statement["lines"]
    )
    indexes = ", ".join(escape(f"{index} {version}") for index, version, _ in answers["indexes"])
    limits = "; ".join(
        f"{name.replace('_', ' ')} {value}"
        for name, value in terms.items()
        if name not in ("pool", "policy") and value is not None and value is not True
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Payouts for {escape(statement["period"])}</title>
<style>{_STYLE}</style>
<h1>Payouts for {escape(statement["period"])}</h1>
<p>{terms["pool"]} by the policy <b>{terms["policy"]}</b>. {escape(statement["policy_text"])}</p>
<p>{escape(limits)}. Shares with their 95 % interval over other queries of the same kind.</p>
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table>
<p>Undistributed: {statement["undistributed"]}.</p>
<p>{answers["entries"]} answers of weight {answers["weight"]:g} from {indexes}; entries
{ledger["first"]} to {ledger["last"]} of the ledger, which ends there with the hash
<code>{ledger["hash"]}</code>. Whence {escape(statement["program"])}.</p>
</html>
"""


def _shown(value: Any) -> str:
    if value is None:
        return "<i>documents without an owner</i>"
    return f"{value:.2%}" if isinstance(value, float) else escape(str(value))
