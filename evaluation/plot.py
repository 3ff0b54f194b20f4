"""A line chart as SVG: small enough to be read in a diff, the same bytes from the same numbers."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 700, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 230, 36, 48
# Okabe and Ito's colours, which people with colour blindness tell apart, and a grey.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442",
    "#999999",
)  # fmt: skip

Line = Sequence[tuple[float, float]]


def line_chart(
    lines: Mapping[str, Line],
    *,
    title: str,
    across: str,
    up: str,
    bottom: float = 0.0,
    top: float = 1.0,
) -> str:
    """Lines over a logarithmic horizontal axis.

    Args:
        lines: Points of each, by its name; horizontal values above 0.
        title: Over the chart.
        across: What the horizontal axis is, with its unit.
        up: What the vertical axis is.
        bottom: Of the vertical axis.
        top: Of the vertical axis.

    Raises:
        ValueError: No point, or one that is not above 0 on the horizontal axis.
    """
    places = sorted({x for line in lines.values() for x, _ in line})
    if not places or places[0] <= 0:
        raise ValueError(
            f"the points {places[:3]} do not lie on a logarithmic axis; give some > 0."
        )
    first, last = math.log(places[0]), math.log(places[-1])
    spread = last - first or 1.0

    def horizontal(x: float) -> float:
        return LEFT + (math.log(x) - first) / spread * (WIDTH - LEFT - RIGHT)

    def vertical(y: float) -> float:
        return HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 20, title, size=14),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, across, anchor="middle"),
        _text(8, TOP - 6, up),
    ]
    for step in range(6):
        y = bottom + (top - bottom) * step / 5
        parts += [
            f'<path d="M{LEFT} {vertical(y):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>',
            _text(LEFT - 6, vertical(y) + 4, f"{y:.3g}", anchor="end"),
        ]
    free = -math.inf
    for x in places:
        if horizontal(x) - free >= 44:  # labels that would touch are left out
            parts.append(_text(horizontal(x), HEIGHT - BOTTOM + 16, f"{x:,.4g}", anchor="middle"))
            free = horizontal(x)
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = [(horizontal(x), vertical(min(max(y, bottom), top))) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        key = TOP + 18 * number
        parts += [
            f'<path d="M{WIDTH - RIGHT + 12} {key}h18" stroke="{colour}" stroke-width="2"/>',
            _text(WIDTH - RIGHT + 36, key + 4, name),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">'
        f"{escape(words)}</text>"
    )
