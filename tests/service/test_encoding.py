"""Answers that have no usable gradient, or hardly one, through the engine."""

from contextlib import contextmanager

import pytest

from influence.errors import NumericalError
from service.schemas import AttributeRequest


def ask(engine, response, **fields):
    request = AttributeRequest(prompt="where is the king?", response=response, **fields)
    return engine.attribute(request, request_id="test")


@contextmanager
def spoilt(weight, value):
    """A model with other weights than those of its index."""
    before = weight.data.clone()
    weight.data[...] = value
    try:
        yield
    finally:
        weight.data.copy_(before)


def test_a_response_of_one_token_is_explained_like_any_other(engine):
    found = ask(engine, "s", explain=True, top_k=3)
    assert found.query.tokens == 1
    for hit in found.proponents:
        assert hit.explanation is not None
        # Its one token is predicted from the prompt, whose positions are no text of the response.
        parts = [part.influence for part in hit.explanation.response]
        assert len(parts) == 1
        whole = sum(parts) + hit.explanation.response_elsewhere
        # float32 sums, whose terms may cancel: relative to |q| |z|.
        scale = abs(hit.influence / hit.relative_influence)
        assert whole == pytest.approx(hit.influence, abs=1e-5 * scale)


def test_a_gradient_of_zero_is_told_and_not_ranked(engine):
    """Nothing comes through a last norm of weight 0, so the loss depends on no layer."""
    with (
        spoilt(engine.loaded.model.model.norm.weight, 0),
        pytest.raises(NumericalError, match=r"is zero \(its loss is \d.*longer span"),
    ):
        ask(engine, "the king is north")
    assert ask(engine, "the king is north").proponents


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_told_and_not_ranked(engine, value):
    with (
        spoilt(engine.loaded.model.model.layers[0].mlp.up_proj.weight, value),
        pytest.raises(NumericalError, match="not finite"),
    ):
        ask(engine, "the king is north")
    assert ask(engine, "the king is north").proponents
