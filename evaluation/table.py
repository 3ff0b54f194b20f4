"""The table of a comparison, for people (Markdown) and for programs (JSON)."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from evaluation.comparison import Row
from evaluation.lds import Interval
from evaluation.trial import Trial

HEADINGS = (
    ("method", "---"),
    ("c", "---:"),
    ("c₂", "---:"),
    ("LDS [95 %]", "---:"),
    ("of EK-FAC's", "---:"),
    ("LDS, relative", "---:"),
    ("LDS, models averaged", "---:"),
    ("recall@1", "---:"),
    ("s", "---:"),
    ("bytes a passage", "---:"),
)


def markdown(trial: Trial, rows: Sequence[Row]) -> str:
    """Protocol and table; the last line ends with a newline."""
    lines = [
        trial.protocol,
        "",
        _line(name for name, _ in HEADINGS),
        _line(rule for _, rule in HEADINGS),
    ]
    lines += [_line(_cells(row)) for row in rows]
    return "\n".join(lines) + "\n"


def as_json(trial: Trial, rows: Sequence[Row]) -> str:
    """Everything that was measured, the curves over the dampings included."""
    content = {
        "task": trial.name,
        "protocol": trial.protocol,
        "models": len(trial.subjects),
        "queries_reported": int(trial.reported.sum()),
        "queries_picked_by": int((~trial.reported).sum()),
        "rows": [asdict(row) for row in rows],
    }
    return json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _cells(row: Row) -> list[str]:
    return [
        row.method,
        _damping(row.dampings.layer),
        _damping(row.dampings.joint),
        _interval(row.lds),
        "–"
        if row.share is None
        else f"{row.share.mean:.1%} [{row.share.low:.1%}, {row.share.high:.1%}]",
        f"{row.lds_relative:.3f}",
        f"{row.lds_averaged.mean:.3f}",
        "–" if row.recall is None else f"{row.recall:.3f}",
        f"{row.seconds:.1f}",
        f"{row.bytes_a_passage:,}",
    ]


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _interval(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _damping(value: float) -> str:
    if math.isnan(value):
        return "–"
    return "off" if math.isinf(value) else f"{value:g}"


def _plain(value: Any) -> Any:
    """JSON has neither infinity nor NaN: a string, as in a manifest, and null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
