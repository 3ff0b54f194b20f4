"""All views in one file that needs no server and asks no other host.

Texts of corpora are escaped; the only scripts are Plotly's library and the figures themselves.
"""

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from service.dashboard.view import Column, Fact, Figure, Kind, Table, View

MOST_ROWS = 200  # of a table; the command that made the file says where all are
_NUMBERS = frozenset({"number", "count", "share"})
_STYLE = (
    "body{font:11pt/1.5 sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1d1b18}"
    "table{border-collapse:collapse;width:100%;font-size:.9em}td,th{padding:.2em .6em;"
    "border-bottom:1px solid #ccc;text-align:start;vertical-align:top;overflow-wrap:anywhere}"
    ".number{text-align:end;white-space:nowrap;font-variant-numeric:tabular-nums}.hint{color:#5f594f}"
    ".scroll{overflow:auto;max-height:36rem}dl{display:flex;flex-wrap:wrap;gap:1rem}"
    "dd{margin:0}dt{color:#5f594f}"
)


def to_html(title: str, says: str, views: Sequence[View], *, library: Path) -> str:
    """The file.

    Args:
        title: Of the file.
        says: What it was made from, in a sentence.
        views: In their order.
        library: ``plotly.min.js``.
    """
    figures = [figure for view in views for figure in view.figures]
    plots = _script_json([figure.plot for figure in figures])
    numbers = iter(range(len(figures)))
    body = "\n".join(_view(view, [next(numbers) for _ in view.figures]) for view in views)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<h1>{escape(title)}</h1>
<p>{escape(says)}</p>
{body}
<script>{library.read_text(encoding="utf-8")}</script>
<script>
{plots}.forEach((plot, number) => Plotly.newPlot(`figure-${{number}}`, plot.data, plot.layout,
  {{responsive: true, displayModeBar: false}}));
</script>
</html>
"""


def _view(view: View, numbers: list[int]) -> str:
    parts = [f"<section><h2>{escape(view.title)}</h2><p>{escape(view.says)}</p>"]
    parts += [f'<p class="hint">{escape(why)}</p>' for why in view.missing]
    parts.append(f"<dl>{''.join(map(_fact, view.facts))}</dl>")
    parts += [_figure(*both) for both in zip(view.figures, numbers, strict=True)]
    parts += [_table(table) for table in view.tables]
    return "\n".join([*parts, "</section>"])


def _fact(fact: Fact) -> str:
    value = _cell(fact.value, fact.kind)
    return f"<div><dt>{escape(fact.title)}</dt><dd>{value}</dd><dd>{escape(fact.says)}</dd></div>"


def _figure(figure: Figure, number: int) -> str:
    return (
        f'<h3>{escape(figure.title)}</h3><p class="hint">{escape(figure.says)}</p>'
        f'<div id="figure-{number}" role="img" aria-label="{escape(figure.says)}"></div>'
    )


def _table(table: Table) -> str:
    head = "".join(
        f'<th scope="col"{_class(column.kind)}>{escape(column.title)}</th>'
        for column in table.columns
    )
    rows = "\n".join(_row(row, table.columns) for row in table.rows[:MOST_ROWS])
    shown = min(len(table.rows), MOST_ROWS)
    return (
        f'<h3>{escape(table.title)}</h3><p class="hint">{escape(table.says)} '
        f"{shown} of {len(table.rows)} rows.</p>"
        f'<div class="scroll" tabindex="0"><table data-table="{table.name}"><thead><tr>{head}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div>"
    )


def _row(row: Sequence[Any], columns: Sequence[Column]) -> str:
    cells = (
        f"<td{_class(column.kind)}>{_cell(value, column.kind)}</td>"
        for value, column in zip(row, columns, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"


def _class(kind: Kind) -> str:
    return ' class="number"' if kind in _NUMBERS else ""


def _cell(value: Any, kind: Kind) -> str:
    """A number as people read it, its shortest exact digits behind it; anything else as text."""
    if value is None:
        return "–"
    if not isinstance(value, int | float) or not math.isfinite(value):
        return escape(str(value))
    return f'<data value="{value}" title="{value}">{_readable(value, kind)}</data>'


def _readable(value: float, kind: Kind) -> str:
    if kind == "share":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    if value == int(value):
        return f"{int(value):,}"
    decimals = 4 - math.floor(math.log10(abs(value)))  # five digits that count
    return f"{value:,.{min(6, max(0, decimals))}f}"


def _script_json(value: Any) -> str:
    # Nothing in it can end the script: a corpus may hold </script>.
    return json.dumps(value).replace("<", "\\u003c")
