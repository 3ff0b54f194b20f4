"""SOURCE on quadratic models against gradient descent itself, differentiated or in closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from influence.unrolled import (
    diagonal_in_basis,
    segment_weights,
    unrolled_factors,
    with_weight_decay,
)

curvatures = st.lists(st.floats(0, 5), min_size=1, max_size=6)
SMALL_STEP = 4e-4  # with σ ≤ 5 the flow is off by ησ/2 ≤ 1e-3 of a weight


def _tensor(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(curvatures.map(lambda c: (c * 3)[:3]), st.integers(1, 4000)), min_size=1,
             max_size=4)
)  # fmt: skip
def test_the_weights_are_those_of_the_steps_of_gradient_descent(segments):
    """A unit gradient at every step of segment ℓ, carried to the end by ``1 - ησ`` a step."""
    sigma = _tensor([curvature for curvature, _ in segments])
    steps = [count for _, count in segments]
    got = segment_weights(sigma, _tensor([[SMALL_STEP * count] for count in steps]))
    keep = 1 - SMALL_STEP * sigma
    for number, count in enumerate(steps):
        powers = keep[number] ** torch.arange(count, dtype=torch.float64)[:, None]
        want = SMALL_STEP * powers.sum(0)
        for later in range(number + 1, len(steps)):
            want = want * keep[later] ** steps[later]
        # Each later segment adds x·ησ/2 with x e⁻ˣ ≤ e⁻¹ to the relative error of the first.
        assert_close(got[number], want, rtol=0, atol=1e-3 * SMALL_STEP * count)


@given(curvatures, st.floats(1e3, 1e6))
def test_one_long_segment_is_the_influence_function(curvature, length):
    sigma = _tensor(curvature) + 0.1  # a direction without curvature never converges
    weights = segment_weights(sigma[None], _tensor([[length]]))
    assert_close(weights[0], 1 / sigma, rtol=1e-12, atol=0)


@given(curvatures, st.floats(1e-12, 1e-6))
def test_a_short_segment_is_the_gradient_dot_product(curvature, length):
    sigma = _tensor(curvature)
    weights = segment_weights(sigma[None], _tensor([[length]]))
    # 1 - exp(-x) = x - x²/2 + …: off by x/2 of the weight.
    assert_close(weights[0], torch.full_like(sigma, length), rtol=5 * length, atol=0)


def test_no_curvature_and_tiny_curvature_lose_no_digits():
    sigma = _tensor([[0.0, 1e-300, 1e-16, 1e-8]])
    got = segment_weights(sigma, _tensor([[2.0]]))[0]
    assert_close(got, torch.full_like(got, 2.0), rtol=2e-8, atol=0)


@given(st.lists(curvatures.map(lambda c: (c * 3)[:3]), min_size=1, max_size=4))
def test_the_two_sides_multiply_to_the_sum_over_segments(rows):
    sigma = _tensor(rows)
    lengths = torch.linspace(0.5, 3, len(rows), dtype=torch.float64)[:, None]
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(len(rows), 3, generator=generator, dtype=torch.float64)
    query = torch.randn(3, generator=generator, dtype=torch.float64)
    want = (segment_weights(sigma, lengths) * gradients * query).sum()
    factors = unrolled_factors(sigma, lengths)
    got = (factors.query * query) @ (factors.passages * gradients).sum(0)
    assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_what_was_learnt_first_is_forgotten_along_the_curvature_of_what_came_later():
    sigma = _tensor([[1.0, 1.0], [1.0, 0.0]])
    first, _ = segment_weights(sigma, _tensor([[5.0], [5.0]]))
    assert_close(first[0] / first[1], torch.exp(_tensor(-5.0)))


def test_a_segment_that_forgets_everything_leaves_zeros_and_no_nan():
    factors = unrolled_factors(_tensor([[1.0], [1e6]]), _tensor([[1.0], [1e6]]))
    assert torch.isfinite(factors.passages).all()
    assert factors.passages[0, 0] == 0


def test_weight_decay_is_curvature():
    """Gradient descent on ``σθ²/2 + dθ²/2``, one step after the other."""
    eta, sigma, decay, count = 1e-3, 0.7, 0.3, 800
    theta = 0.0
    for _ in range(count):
        theta -= eta * (sigma * theta + decay * theta - 1.0)  # a unit of gradient a step
    got = segment_weights(with_weight_decay(_tensor([sigma]), decay)[None], _tensor([eta * count]))
    assert_close(float(got), theta, rtol=1e-3, atol=0)


def test_decoupled_weight_decay_beside_a_preconditioner():
    """AdamW with a fixed second moment, one step after the other."""
    eta, sigma, decay, p, count = 1e-3, 0.7, 0.3, 4.0, 800
    theta = 0.0
    for _ in range(count):
        theta -= eta * (p * (sigma * theta - 1.0) + decay * theta)
    curvature = with_weight_decay(_tensor([sigma]), decay, _tensor([p]))
    got = segment_weights(curvature[None], _tensor([[eta * count * p]]))
    assert_close(float(got), theta, rtol=2e-3, atol=0)


def test_a_preconditioner_in_an_eigenbasis_keeps_its_diagonal():
    generator = torch.Generator().manual_seed(0)
    d = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    p_in = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64)).Q[:2]
    p_out = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64)).Q
    whole = torch.kron(p_out, p_in)
    want = (whole @ torch.diag(d.flatten()) @ whole.T).diagonal().view(3, 2)
    assert_close(diagonal_in_basis(d, p_in, p_out), want)


@pytest.mark.parametrize(
    ("curvature", "lengths", "said"),
    [
        ([[1.0]], [[1.0], [1.0]], "segments"),
        ([[-1.0]], [[1.0]], "below 0"),
        ([[float("nan")]], [[1.0]], "not finite"),
        ([[1.0]], [[-1.0]], "lengths"),
    ],
)
def test_what_is_no_curvature_is_refused(curvature, lengths, said):
    with pytest.raises(ValueError, match=said):
        segment_weights(_tensor(curvature), _tensor(lengths))
