"""Statements of payouts: who gets what of a pool for a period, and everything it follows from.

A statement is one JSON document. It adds up to the pool, names the range of the ledger and its
hash, and has no time and no host in it: the same ledger and the same terms give the same bytes.
Once it is recorded it is an entry of the chain itself, and no other can be made for any entry that
it covers.
"""

import csv
import io
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from influence.errors import InvalidInput
from service.ledger.chain import Pending, canonical
from service.ledger.ledger import Ledger
from service.valuation.allocation import divide, show_money
from service.valuation.counting import Counting
from service.valuation.intervals import bootstrap_totals, interval, shares
from service.valuation.periods import parse_period
from service.valuation.report import totals_of
from service.valuation.totals import PeriodTotals
from service.valuation.weighing import EQUAL_KEYS, NORMALISED, Entries, EqualKeys, Normalised

if TYPE_CHECKING:
    from service.engine import Engine

PolicyName = Literal["shapley", "positive-share", "flat"]

POLICIES: dict[str, str] = {
    "shapley": (
        "In proportion to each owner's Shapley value under the linear utility, which is the sum of "
        "the signed influences of its documents over all answers, weighted by their usage. An "
        "owner whose sum is not positive earns nothing."
    ),
    "positive-share": (
        "Every answer is divided among the owners whose documents spoke for it, in proportion to "
        "their positive totals; an owner earns the sum of its parts, weighted by usage."
    ),
    "flat": "In equal parts among the owners that the index had when answers were given.",
}
_AMOUNTS = {"pool", "floor", "cap_per_document", "min_payment"}
_MEASURES = {"fold_duplicates", "norm_cap", "relative", "normalise_answers", "equal_keys"}
_KINDS = {"shapley": "linear", "positive-share": "positive-share", "flat": "flat"}


@dataclass(frozen=True)
class Terms:
    """How a pool is divided; amounts in cents.

    Attributes:
        pool: What is divided.
        policy: In proportion to what.
        floor: What every owner in the period's index gets at least.
        cap_per_document: What an owner gets at most for each of its documents; None: any amount.
        min_payment: What is less is not paid but carried forward to the next statement.
        fold_duplicates: Near-duplicates count nothing (`Counting`).
        norm_cap: No vector counts as longer than so many medians (`Counting`).
        relative: Cosines in place of nats (`Counting`).
        normalise_answers: Each answer's totals over the sum of their absolute values.
        equal_keys: All API keys weigh the same.
    """

    pool: int
    policy: PolicyName
    floor: int = 0
    cap_per_document: int | None = None
    min_payment: int = 0
    fold_duplicates: bool = False
    norm_cap: float | None = None
    relative: bool = False
    normalise_answers: bool = False
    equal_keys: bool = False

    @property
    def counting(self) -> Counting:
        """What passages count for."""
        return Counting(self.fold_duplicates, self.norm_cap, self.relative)

    @property
    def text(self) -> str:
        """The policy and every counter-measure, for the statement."""
        said = [POLICIES[self.policy], self.counting.text]
        said += [NORMALISED] if self.normalise_answers else []
        said += [EQUAL_KEYS] if self.equal_keys else []
        return " ".join(part for part in said if part)


def make_statement(
    ledger: Ledger,
    period: str,
    terms: Terms,
    *,
    documents: dict[str, int] | None = None,
    engine: "Engine | None" = None,
) -> dict[str, Any]:
    """The statement of a period; that which is recorded, where one is.

    Args:
        ledger: To divide by.
        period: Of the entries.
        terms: How.
        documents: Of each owner, for the cap.
        engine: Of the index that answered, where passages count otherwise than recorded.

    Raises:
        InvalidInput: No period or one without entries; a part of it is paid already; nobody has
            positive worth; a cap without documents; a counting that cannot be made.
        LedgerUnavailable: The database cannot be read.
    """
    wanted = parse_period(period)
    first, last = ledger.range_of(wanted.start_us, wanted.end_us)
    for event in ledger.events("payout"):
        paid = event.content
        if paid["period"] == period and paid["terms"] == _shown(terms):
            return paid
        if paid["ledger"]["first"] <= last and first <= paid["ledger"]["last"]:
            raise InvalidInput(
                f"{period} overlaps {paid['period']}, which is paid already (entries "
                f"{paid['ledger']['first']} to {paid['ledger']['last']}, policy "
                f"{paid['terms']['policy']}). Choose a period behind it."
            )
    totals = totals_of(ledger, period, entries=_entries(ledger, terms, engine))
    if terms.cap_per_document is not None and documents is None:
        raise InvalidInput("A cap for each document needs their number. Give --index INDEX.")
    worth = totals.total(_KINDS[terms.policy])
    names = totals.owners
    per = terms.cap_per_document
    caps = [
        None if per is None or not name else per * (documents or {}).get(name, 0) for name in names
    ]
    floors = [terms.floor if name else 0 for name in names]
    earned, nobody = divide(terms.pool, worth.tolist(), floors=floors, caps=caps)
    return {
        "format": 1,
        "program": version("whence"),
        "period": period,
        "terms": _shown(terms),
        "policy_text": terms.text,
        "ledger": _range(ledger, totals),
        "answers": {
            "entries": totals.entries,
            "weight": totals.weight,
            "recorded_by": totals.policies,
            "indexes": [list(one) for one in totals.versions],
        },
        "lines": _lines(ledger, totals, terms, worth, earned),
        "undistributed": show_money(nobody),
    }


def record_statement(ledger: Ledger, statement: dict[str, Any], *, now_us: int) -> None:
    """Make a statement an entry of the chain: it is paid.

    Raises:
        InvalidInput: Its period has not ended.
        LedgerUnavailable: The database cannot be written.
    """
    period = parse_period(statement["period"])
    if period.end_us > now_us:
        raise InvalidInput(
            f"{period.name} has not ended, so more may still come. Leave --record out for a draft."
        )
    key = f"payout:{statement['ledger']['first']}-{statement['ledger']['last']}"
    ledger.append([Pending("payout", key, now_us, canonical(statement))])


def to_json(statement: dict[str, Any]) -> str:
    """The statement as canonical JSON and a line end."""
    return canonical(statement) + "\n"


def to_csv(statement: dict[str, Any]) -> str:
    """The lines as a table; a name that a spreadsheet would compute has a ' before it."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(statement["lines"][0])
    for line in statement["lines"]:
        name = line["owner"] or ""
        guarded = f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name
        table.writerow([guarded, *list(line.values())[1:]])
    return out.getvalue()


def _shown(terms: Terms) -> dict[str, Any]:
    """As a statement tells them; counter-measures only where there are any."""
    return {
        name: show_money(value) if name in _AMOUNTS and value is not None else value
        for name, value in asdict(terms).items()
        if name not in _MEASURES or value not in (None, False)
    }


def _entries(ledger: Ledger, terms: Terms, engine: "Engine | None") -> Entries:
    """The ledger, or what stands before it under these terms."""
    entries: Entries = ledger
    if terms.counting != Counting():
        if engine is None:
            raise InvalidInput(
                "Passages that count otherwise than recorded need the index that answered. Give "
                "--index INDEX."
            )
        # Here: it loads torch, and most statements have no need of it.
        from service.valuation.rescoring import Recounted

        entries = Recounted(ledger, engine, terms.counting)
    if terms.normalise_answers:
        entries = Normalised(entries)
    return EqualKeys(entries, ledger) if terms.equal_keys else entries


def _range(ledger: Ledger, totals: PeriodTotals) -> dict[str, Any]:
    (end,) = ledger.read(totals.last, totals.last)
    return {"first": totals.first, "last": totals.last, "hash": end.hash.hex()}


def _lines(
    ledger: Ledger, totals: PeriodTotals, terms: Terms, worth: Any, earned: list[int]
) -> list[dict[str, Any]]:
    low, high = interval(shares(bootstrap_totals(totals.groups[_KINDS[terms.policy]])))
    share = shares(worth)
    newest = ledger.events("owners")[-1].content["names"]
    figures = {
        name: (float(worth[o]), float(share[o]), float(low[o]), float(high[o]), earned[o])
        for o, name in enumerate(totals.owners)
    }
    brought = _carried(ledger)
    # Who is owed something from before has a line, though nothing of it answered since.
    gone = {name: (0.0, 0.0, 0.0, 0.0, 0) for name in sorted(brought) if name not in figures}
    lines = []
    for name, (value, part, part_low, part_high, cents) in (figures | gone).items():
        due = cents + brought.get(name, 0)
        paid = due if name and due >= max(terms.min_payment, 1) else 0
        lines.append(
            {
                "owner": name or None,
                "worth": value,
                "share": part,
                "share_low": part_low,
                "share_high": part_high,
                "earned": show_money(cents),
                "brought_forward": show_money(due - cents),
                "paid": show_money(paid),
                # What is earned by documents without an owner is kept by whoever pays.
                "carried_forward": show_money(due - paid if name else 0),
                "in_newest_index": name in newest,
            }
        )
    return lines


def _carried(ledger: Ledger) -> dict[str, int]:
    """What the statements before left unpaid, in cents."""
    carried: dict[str, int] = {}
    for event in ledger.events("payout"):
        for line in event.content["lines"]:
            carried[line["owner"] or ""] = int(line["carried_forward"].replace(".", ""))
    return {name: cents for name, cents in carried.items() if cents}
