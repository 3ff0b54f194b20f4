"""Dampings picked from held-out vectors, on data whose covariance is known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from influence.errors import InvalidInput
from influence.shrinkage import (
    JOINT_GRID,
    LAYER_GRID,
    diagonal_losses,
    joint_losses,
    layer_losses,
    low_rank_losses,
    pick,
    raw_losses,
)
from influence.whitening import LowRankWhitening


def _rows(n, dims, decay, *, seed=0, tail=0.0):
    """Eigenvalues ``1/k^decay`` along the axes; norms with a log-normal tail."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, dims + 1, dtype=torch.float64) ** (-decay / 2)
    norms = (tail * torch.randn(n, 1, generator=generator, dtype=torch.float64)).exp()
    return torch.randn(n, dims, generator=generator, dtype=torch.float64) * scale * norms


def _mean_loss(covariance, vectors):
    """``log det Σ + D log(vᵀ Σ⁻¹ v)`` by a dense solve."""
    quadratic = (vectors * torch.linalg.solve(covariance, vectors.T).T).sum(dim=1)
    return covariance.logdet() + len(covariance) * quadratic.log().mean()


def test_the_loss_is_the_angular_likelihood():
    """Up to a constant it is what integrating a Gaussian over the length of its vector gives."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    covariance = mix @ mix.T + torch.eye(3)
    units = torch.nn.functional.normalize(_rows(4, 3, 0.0, seed=2), dim=1)
    gaussian = MultivariateNormal(torch.zeros(3, dtype=torch.float64), covariance)
    lengths = torch.linspace(1e-4, 60, 60_001, dtype=torch.float64)
    density = gaussian.log_prob(lengths[:, None, None] * units).exp() * lengths[:, None] ** 2
    log_likelihood = torch.trapezoid(density, lengths, dim=0).log()
    twice_negative = torch.stack([_mean_loss(covariance, unit[None]) for unit in units])
    constant = twice_negative + 2 * log_likelihood
    assert_close(constant, constant.mean().expand(4), rtol=1e-5, atol=0)


def test_diagonal_losses_are_those_of_the_dense_covariance():
    held_out = _rows(9, 6, 1.0)
    held_out[3] = 0  # no direction
    eigenvalues = torch.tensor([3.0, 1.0, 0.5, 0.1, 0.0, 0.0], dtype=torch.float64)
    got = diagonal_losses(eigenvalues, held_out, (0.1, 2.0))
    kept = held_out[[i for i in range(9) if i != 3]]
    for c, loss in zip((0.1, 2.0), got, strict=True):
        covariance = torch.diag(eigenvalues + c * eigenvalues.mean())
        assert_close(loss, _mean_loss(covariance, kept), rtol=1e-10, atol=0)


def test_low_rank_losses_are_those_of_the_dense_covariance():
    sample, held_out = _rows(5, 8, 1.0), _rows(7, 8, 1.0, seed=1)
    got = low_rank_losses(LowRankWhitening.fit(sample, damping=1.0), held_out, (0.1, 2.0, math.inf))
    covariance = sample.T @ sample / 5
    identity = torch.eye(8, dtype=torch.float64)
    mean = covariance.trace() / 5
    want = [_mean_loss(covariance + c * mean * identity, held_out) for c in (0.1, 2.0)]
    assert_close(got, torch.stack([*want, _mean_loss(identity, held_out)]), rtol=1e-9, atol=0)


def test_neither_scale_nor_norms_matter():
    rows = _rows(40, 30, 1.0)
    norms = torch.rand(40, 1, generator=torch.Generator().manual_seed(0)).double() * 100 + 1
    fitted = LowRankWhitening.fit(rows, damping=1.0)
    for grid, losses in (
        (LAYER_GRID, lambda held: diagonal_losses(rows.square().mean(0), held, LAYER_GRID)),
        (JOINT_GRID, lambda held: low_rank_losses(fitted, held, JOINT_GRID)),
    ):
        plain, scaled = losses(rows), losses(rows * norms)
        assert_close(plain - plain[0], scaled - scaled[0], rtol=1e-6, atol=1e-6)
        assert pick(plain, grid) == pick(scaled, grid)


@pytest.mark.parametrize("tail", [0.0, 1.5], ids=["gaussian", "heavy tail"])
@pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("n", [16, 320])
def test_the_damping_of_a_layer_is_nearly_the_best_there_is(n, decay, tail):
    """Within a nat a hundred numbers of what knowing the distribution would pick."""
    rows = _rows(n, 200, decay, tail=tail)
    picked = pick(layer_losses(rows), LAYER_GRID)
    truth = diagonal_losses(rows.square().mean(0), _rows(3000, 200, decay, seed=1), LAYER_GRID)
    assert truth[LAYER_GRID.index(picked)] - truth.min() < 2 * 0.01 * 200


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("n", [20, 160])
def test_the_joint_damping_is_nearly_the_best_there_is(n, decay):
    rows = _rows(n, 300, decay)
    picked = pick(joint_losses(rows), JOINT_GRID)
    fitted = LowRankWhitening.fit(rows, damping=1.0)
    truth = low_rank_losses(fitted, _rows(2000, 300, decay, seed=1), JOINT_GRID)
    assert truth[JOINT_GRID.index(picked)] - truth.min() < 2 * 0.01 * 300


def test_isotropic_vectors_turn_the_joint_whitening_off_and_steep_ones_do_not():
    assert pick(joint_losses(_rows(160, 300, 0.0)), JOINT_GRID) >= 10
    assert pick(joint_losses(_rows(400, 100, 0.0)), JOINT_GRID) == math.inf
    assert pick(joint_losses(_rows(160, 300, 2.0)), JOINT_GRID) <= 0.01


def test_more_vectors_need_less_damping():
    few, many = (pick(layer_losses(_rows(n, 100, 1.0)), LAYER_GRID) for n in (16, 2000))
    assert many < few
    few, many = (pick(raw_losses(_rows(n, 30, 1.0)), LAYER_GRID) for n in (16, 2000))
    assert many < few


def test_of_equal_losses_the_largest_damping_is_taken():
    assert pick(torch.tensor([2.0, 1.0, 1.0]), (0.1, 0.3, 1.0)) == 1.0


def test_a_layer_that_no_gradient_reached_has_no_say():
    zero = torch.zeros(20, 5)
    assert layer_losses(zero).count_nonzero() == 0
    assert raw_losses(zero).count_nonzero() == 0
    assert joint_losses(zero).count_nonzero() == 0


def test_a_handful_of_passages_is_refused():
    with pytest.raises(InvalidInput, match=r"7 passages; at least 8"):
        joint_losses(_rows(7, 5, 1.0))
