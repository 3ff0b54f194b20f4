"""Joint whitening from few vectors against the dense ``D × D`` matrix, in float64."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from influence.errors import NumericalError
from influence.whitening import BlockWhitening, DiagonalWhitening, LowRankWhitening


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


def _redamped_by_hand(sample, old, new):
    """``(C + μ'I)^-½ (C + μI)^½`` as a dense matrix; an infinite damping is the identity."""
    powers = []
    for damping, power in ((old, 0.5), (new, -0.5)):
        if math.isinf(damping):
            powers.append(torch.eye(sample.shape[1], dtype=torch.float64))
            continue
        values, vectors = torch.linalg.eigh(_dense(sample, damping))
        powers.append(vectors @ torch.diag(values**power) @ vectors.T)
    return powers[1] @ powers[0]


@pytest.mark.parametrize("old", [0.01, 1.0, math.inf])
@pytest.mark.parametrize("new", [0.01, 3.0, math.inf])
def test_redamping_is_undoing_one_and_doing_the_other(old, new):
    sample = _sample(6, 15)
    fitted = LowRankWhitening.fit(sample, damping=1.0)
    before, after = replace(fitted, damping=old), replace(fitted, damping=new)
    u = _sample(5, 15)
    z = before.forward(u)
    assert_close(before.redamped(z, after), after.forward(u), rtol=1e-10, atol=1e-11)
    assert_close(before.redamped(z, after), z @ _redamped_by_hand(sample, old, new))


def test_diagonal_whitening_and_what_it_drops():
    whitening = DiagonalWhitening(torch.tensor([2.0, 0.0, 0.5]))
    u = torch.tensor([[1.0, 5.0, 4.0], [0.0, 1.0, -2.0]])
    z = whitening.forward(u)
    assert_close(z, torch.tensor([[2.0, 0.0, 2.0], [0.0, 0.0, -1.0]]))
    assert_close(whitening.inverse(z), torch.tensor([[1.0, 0.0, 4.0], [0.0, 0.0, -2.0]]))


def test_blocks_are_a_block_diagonal_matrix():
    low_rank = LowRankWhitening.fit(_sample(4, 9), damping=0.5)
    diagonal = DiagonalWhitening(torch.tensor([3.0, 0.25], dtype=torch.float64))
    blocks = BlockWhitening([(9, low_rank), (2, diagonal)])
    dense = torch.block_diag(low_rank.forward(torch.eye(9).double()), torch.diag(diagonal.roots))
    u = _sample(5, 11)
    assert_close(blocks.forward(u), u @ dense, rtol=1e-10, atol=1e-11)
    assert_close(blocks.inverse(blocks.forward(u)), u, rtol=1e-10, atol=1e-11)
