"""What was measured of the index, in the note beside every answer."""

from datetime import date

import pytest
from playwright.sync_api import expect

from influence.manifest import Quality

NOT_MEASURED = "How well it predicts retraining was not measured for this index."


def _figure(measure: str, value: float) -> Quality:
    return Quality(
        measure=measure,
        value=value,
        low=value - 0.05,
        high=value + 0.1,
        protocol="12 queries",
        date=date(2026, 3, 1),
    )


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ([], NOT_MEASURED),
        (
            [_figure("lds", 0.52)],
            "On this index it predicts the effect of retraining with a rank correlation (LDS) of "
            "0.52 (0.47 to 0.62), where 1 would be perfect.",
        ),
        (
            [_figure("own_recall@1", 0.9), _figure("recall@1", 0.7), _figure("tail_patch", 1.9)],
            "On this index one training step on the first proponents made answers likelier by "
            "1.90 (1.85 to 2.00) nats; a document known to state the answer came first in a share "
            f"of 0.70 (0.65 to 0.80) of questions. {NOT_MEASURED}",
        ),
        (
            [_figure("own_tail_patch", 1.9)],
            "On this index one training step on the first proponents made answers likelier by "
            "1.90 (1.85 to 2.00) nats, asked for the second halves of its own passages. "
            f"{NOT_MEASURED}",
        ),
    ],
)
def test_every_figure_that_was_attached_is_told_and_lds_is_missed(open_page, site, measured, said):
    site.quality = tuple(measured)
    note = open_page().page.locator(".quality")
    expect(note).to_have_text(said)
