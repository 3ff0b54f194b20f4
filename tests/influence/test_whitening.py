"""Joint whitening from few vectors against the dense ``D × D`` matrix, in float64."""

import math

import pytest
import torch
from torch.testing import assert_close

from influence.errors import NumericalError
from influence.whitening import LowRankWhitening


def _sample(n: int, dims: int, *, rank: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n + dims)
    scale = 2.0 ** torch.linspace(2, -2, dims, dtype=torch.float64)
    if rank is not None:
        left = torch.randn(n, rank, generator=generator, dtype=torch.float64)
        return left @ torch.randn(rank, dims, generator=generator, dtype=torch.float64)
    return torch.randn(n, dims, generator=generator, dtype=torch.float64) * scale


def _dense(sample: torch.Tensor, damping: float) -> torch.Tensor:
    """``C + μI`` with ``μ`` the damping times the mean eigenvalue over the rank of the sample."""
    covariance = sample.T @ sample / len(sample)
    rank = int(torch.linalg.matrix_rank(sample))
    mu = damping * float(covariance.trace()) / rank
    return covariance + mu * torch.eye(len(covariance), dtype=torch.float64)


SHAPES = {"fewer vectors": (6, 15), "as many": (15, 15), "more": (60, 15)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("damping", [0.1, 1.0, 30.0])
def test_inner_products_are_those_of_the_dense_solve(shape, damping):
    sample = _sample(*SHAPES[shape])
    whitening = LowRankWhitening.fit(sample, damping=damping)
    q, z = _sample(4, 15), _sample(7, 15)
    want = q @ torch.linalg.solve(_dense(sample, damping), z.T)
    got = whitening.forward(q) @ whitening.forward(z).T
    assert_close(got, want, rtol=1e-10, atol=1e-10 * want.abs().max().item())


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_symmetric_inverse_root(shape):
    sample = _sample(*SHAPES[shape])
    values, vectors = torch.linalg.eigh(_dense(sample, 0.5))
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    u = _sample(3, 15)
    got = LowRankWhitening.fit(sample, damping=0.5).forward(u)
    assert_close(got, u @ root, rtol=1e-10, atol=1e-11)


def test_a_sample_of_low_rank_counts_its_rank_and_not_its_size():
    sample = _sample(40, 15, rank=3)
    whitening = LowRankWhitening.fit(sample, damping=1.0)
    assert len(whitening.eigenvalues) == 3
    assert_close(whitening.mu, float((sample.T @ sample / 40).trace()) / 3)


def test_inverse_undoes_forward():
    whitening = LowRankWhitening.fit(_sample(6, 15), damping=0.3)
    u = _sample(5, 15)
    assert_close(whitening.inverse(whitening.forward(u)), u, rtol=1e-12, atol=1e-12)
    assert_close(whitening.forward(whitening.inverse(u)), u, rtol=1e-12, atol=1e-12)


def test_float32_vectors_are_whitened_to_float32_accuracy():
    sample = _sample(30, 200).float()
    whitening = LowRankWhitening.fit(sample, damping=1.0)
    u = _sample(5, 200).float()
    exact = torch.linalg.solve(_dense(sample.double(), 1.0), u.double().T).T @ u.double().T
    got = whitening.forward(u) @ whitening.forward(u).T
    assert got.dtype == torch.float32
    assert (got - exact).norm() < 1e-5 * exact.norm()


def test_infinite_damping_turns_it_off():
    whitening = LowRankWhitening.fit(_sample(6, 15), damping=math.inf)
    u = _sample(5, 15)
    assert torch.equal(whitening.forward(u), u)
    assert torch.equal(whitening.inverse(u), u)
    assert whitening.vectors.shape == (15, 0)


@pytest.mark.parametrize("n", [0, 4])
def test_a_sample_without_any_gradient_changes_nothing(n):
    whitening = LowRankWhitening.fit(torch.zeros(n, 9), damping=1.0)
    u = torch.randn(2, 9)
    assert torch.equal(whitening.forward(u), u)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_is_refused(value):
    sample = _sample(6, 15)
    sample[2, 3] = value
    with pytest.raises(NumericalError, match="not finite"):
        LowRankWhitening.fit(sample, damping=1.0)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_must_be_positive(damping):
    with pytest.raises(ValueError, match="above 0"):
        LowRankWhitening.fit(_sample(6, 15), damping=damping)
