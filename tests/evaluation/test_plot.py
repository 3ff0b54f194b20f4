"""Charts are read back from their SVG."""

from xml.etree import ElementTree

import pytest

from evaluation.plot import line_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(lines, **limits):
    chart = line_chart(lines, title="A < B", across="D", up="LDS", **limits)
    return ElementTree.fromstring(chart)


def points(chart):
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]
        for line in chart.iter(f"{SVG}polyline")
    ]


def test_lines_lie_where_their_numbers_say():
    chart = drawn({"one": [(10, 0.0), (100, 0.5), (1000, 1.0)], "two": [(1000, 0.25)]})
    (low, middle, high), ((_, quarter),) = points(chart)
    assert middle[0] == pytest.approx((low[0] + high[0]) / 2, abs=0.1)  # a logarithmic axis
    assert middle[1] == pytest.approx((low[1] + high[1]) / 2, abs=0.1)
    assert low[1] > quarter > middle[1]  # down the page is down the axis
    words = [text.text for text in chart.iter(f"{SVG}text")]
    assert {"A < B", "one", "two", "D", "LDS", "1,000"} <= set(words)


def test_what_lies_beyond_the_axis_is_drawn_at_its_end():
    ((inside, outside),) = points(drawn({"one": [(1, 1.0), (2, 7.0)]}))
    assert outside[1] == inside[1]


def test_a_chart_of_nothing_is_refused():
    with pytest.raises(ValueError, match="logarithmic"):
        drawn({"one": [(0, 1.0)]})
