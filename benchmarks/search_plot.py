"""The table of `benchmarks.search` as a picture: bytes scanned against time, with the recall."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 160, 30, 60
GOOD = 0.98  # recall@10 from which a way is drawn full


@dataclass(frozen=True)
class Point:
    """One way to search."""

    name: str
    bytes_a_row: float
    p50_ms: float
    recall_at_10: float


def plotted(points: Sequence[Point], title: str) -> str:
    """An SVG, both axes logarithmic; the ways that recall less than `GOOD` are hollow."""
    x = _axis([p.bytes_a_row for p in points], LEFT, WIDTH - RIGHT)
    y = _axis([p.p50_ms for p in points], HEIGHT - BOTTOM, TOP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="13">{escape(title)}</text>',
        f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}" fill="none" stroke="black"/>',
    ]
    for value in _ticks([p.bytes_a_row for p in points]):
        out.append(f'<text x="{x(value):.0f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">'
                   f"{value:,.0f}</text>")  # fmt: skip
    for value in _ticks([p.p50_ms for p in points]):
        out.append(
            f'<text x="{LEFT - 8}" y="{y(value) + 4:.0f}" text-anchor="end">{value:,.0f}</text>'
        )
    out += [
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 18}" text-anchor="middle">'
        "bytes scanned a row (full: recall@10 of at least "
        f"{GOOD})</text>",
        f'<text transform="translate(20 {HEIGHT / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "p50 of one query, ms</text>",
    ]
    for p in points:
        fill = "#2b6cb0" if p.recall_at_10 >= GOOD else "white"
        out.append(
            f'<circle cx="{x(p.bytes_a_row):.1f}" cy="{y(p.p50_ms):.1f}" r="5" fill="{fill}" '
            'stroke="#2b6cb0" stroke-width="2"/>'
        )
        out.append(
            f'<text x="{x(p.bytes_a_row) + 9:.1f}" y="{y(p.p50_ms) + 4:.1f}">'
            f"{escape(p.name)}: {p.recall_at_10:.3f}</text>"
        )
    return "\n".join([*out, "</svg>", ""])


def _axis(values: Sequence[float], begin: float, end: float):
    low, high = math.log2(min(values)) - 0.3, math.log2(max(values)) + 0.3
    return lambda value: begin + (math.log2(value) - low) / (high - low) * (end - begin)


def _ticks(values: Sequence[float]) -> list[float]:
    """Powers of two within the values' range."""
    low, high = math.ceil(math.log2(min(values))), math.floor(math.log2(max(values)))
    return [2.0**n for n in range(low, high + 1)]
