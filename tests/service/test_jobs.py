"""What goes through the queue, and back."""

import json
from contextlib import suppress

import pytest

from influence import errors
from influence.errors import AttributionError
from service.jobs import error_from_wire, error_to_wire


@pytest.mark.parametrize(
    "kind",
    [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, AttributionError)
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_error_is_the_same_on_the_other_side(kind):
    error = kind.__new__(kind, "What happened. What to do.")
    error.args = ("What happened. What to do.",)
    with suppress(AttributeError):
        error.retry_after_s = 3
    back = error_from_wire(json.loads(json.dumps(error_to_wire(error))))
    assert type(back) is kind
    assert str(back) == "What happened. What to do."
    assert getattr(back, "retry_after_s", 3) == 3


def test_an_error_that_only_the_other_side_knows_is_still_one_of_ours():
    wire = {"kind": "FromTheFuture", "message": "What happened.", "retry_after_s": None}
    assert type(error_from_wire(wire)) is AttributionError
    assert type(error_from_wire(wire | {"kind": "json"})) is AttributionError
