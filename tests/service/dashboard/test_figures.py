"""Figures: their colours stand out of a light and of a dark page alike."""

import pytest

from service.dashboard.figures import QUIET, SERIES

PAPERS = ("#fbfaf7", "#141517")  # of web/static/common/theme.css


def luminance(colour: str) -> float:
    """Relative luminance of sRGB, by WCAG 2.2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize("colour", [*SERIES, QUIET])
def test_a_figure_is_seen_on_a_light_and_on_a_dark_page(colour, paper):
    darker, lighter = sorted((luminance(colour), luminance(paper)))
    assert (lighter + 0.05) / (darker + 0.05) >= 3  # WCAG 1.4.11, graphics
