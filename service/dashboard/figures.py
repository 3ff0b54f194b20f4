"""Figures of Plotly, built here and drawn in the page: one function for each kind.

Names come from corpora and ledgers, and Plotly reads some markup in labels, so every text is
escaped. Every colour stands out of a light and of a dark page; lines have their own markers too.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from influence.errors import InvalidInput

FOR, AGAINST, QUIET = "#36867b", "#c35b21", "#7e786d"
SERIES = (FOR, AGAINST, "#5e79a6", "#91762b", "#996a92", "#588537", "#b35e71", "#797979")
_MARKERS = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "pentagon")
_GRID = "rgba(126, 120, 109, 0.25)"
_LONGEST = 40  # characters of a label


def bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    unit: str,
) -> dict[str, Any]:
    """Signed values, one bar each, the first on top, with intervals where they are known."""
    go = _graph_objects()
    error = None
    if low is not None and high is not None:
        error = {
            "type": "data",
            "symmetric": False,
            "array": [max(h - v, 0.0) for h, v in zip(high, values, strict=True)],
            "arrayminus": [max(v - w, 0.0) for v, w in zip(values, low, strict=True)],
            "color": QUIET,
        }
    labels = [_label(name) for name in names]
    bar = go.Bar(
        x=list(values),
        y=list(range(len(labels))),
        orientation="h",
        marker={"color": [FOR if value >= 0 else AGAINST for value in values]},
        error_x=error,
        hovertext=labels,
    )
    figure = go.Figure(bar)
    # Two names may look alike once they are short, so bars stand at numbers and names are ticks.
    figure.update_yaxes(
        tickvals=list(range(len(labels))), ticktext=labels, autorange="reversed", automargin=True
    )
    figure.update_xaxes(title=unit, zeroline=True)
    return _drawn(figure, height=max(220, 60 + 26 * len(labels)))


def lines(
    moments: Sequence[str], series: Mapping[str, Sequence[float]], *, unit: str
) -> dict[str, Any]:
    """Values over time, one line each."""
    go = _graph_objects()
    figure = go.Figure(
        [
            go.Scatter(
                x=list(moments),
                y=list(values),
                name=_label(name),
                mode="lines+markers",
                line={"color": SERIES[number % len(SERIES)]},
                marker={"symbol": _MARKERS[number % len(_MARKERS)]},
            )
            for number, (name, values) in enumerate(series.items())
        ]
    )
    figure.update_yaxes(title=unit)
    figure.update_xaxes(type="category")
    return _drawn(figure, height=340)


def curve(x: Sequence[float], y: Sequence[float], *, x_title: str, y_title: str) -> dict[str, Any]:
    """A curve in the unit square beside its diagonal."""
    go = _graph_objects()
    figure = go.Figure(
        [
            go.Scatter(
                x=[0, 1], y=[0, 1], mode="lines", name="equal", line={"color": QUIET, "dash": "dot"}
            ),
            go.Scatter(x=list(x), y=list(y), mode="lines", name="found", line={"color": FOR}),
        ]
    )
    figure.update_xaxes(title=x_title, range=[0, 1])
    figure.update_yaxes(title=y_title, range=[0, 1])
    return _drawn(figure, height=340)


def histogram(
    edges: Sequence[float], counts: Sequence[int], *, unit: str, what: str
) -> dict[str, Any]:
    """Counts between edges, ``[n + 1]`` and ``[n]``."""
    go = _graph_objects()
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    widths = [b - a for a, b in pairwise(edges)]
    figure = go.Figure(go.Bar(x=middles, y=list(counts), width=widths, marker={"color": FOR}))
    figure.update_xaxes(title=unit)
    figure.update_yaxes(title=what)
    return _drawn(figure, height=300)


def plotly_library() -> Path:
    """``plotly.min.js`` of the installed package.

    Raises:
        InvalidInput: It is not installed.
    """
    return Path(_graph_objects().__file__).parents[1] / "package_data" / "plotly.min.js"


def _label(name: str) -> str:
    return escape(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…")


def _drawn(figure: Any, *, height: int) -> dict[str, Any]:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 20, "t": 10, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": QUIET},
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(gridcolor=_GRID, zerolinecolor=QUIET, linecolor=QUIET, automargin=True)
    return json.loads(figure.to_json())


def _graph_objects() -> Any:
    # It takes a second to import, and a server that shows no dashboard has no need of it.
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise InvalidInput(
            "Figures are drawn with the package plotly, which is not installed. Install it: "
            "`pip install 'whence[api]'`."
        ) from error
    return plotly.graph_objects
