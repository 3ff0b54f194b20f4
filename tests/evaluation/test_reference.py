"""Iterative solvers against the dense solve."""

import pytest
import torch
from torch.testing import assert_close

from evaluation.reference import conjugate_gradients, lissa
from influence.errors import NumericalError

n, k, Q = 30, 50, 4


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def product_with(rows, *, batch=None):
    """``v ↦ RᵀR v / n``; with a new random batch of the rows at every call, as LiSSA was meant."""
    generator = torch.Generator().manual_seed(3)

    def product(vectors):
        chosen = rows[torch.randperm(len(rows), generator=generator)[:batch]]
        return (vectors @ chosen.T) @ chosen / len(chosen)

    return product


def solved(rows, vectors, damping):
    hessian = rows.T @ rows / len(rows) + damping * torch.eye(k, dtype=torch.float64)
    return torch.linalg.solve(hessian, vectors.T).T


@pytest.fixture
def rows():
    # Eigenvalues over three orders of magnitude, as curvatures have.
    return drawn(n, k) * torch.logspace(0, -1.5, k, dtype=torch.float64)


@pytest.fixture
def vectors():
    return drawn(Q, k, seed=1)


@pytest.fixture
def damping(rows):
    return 0.1 * float(torch.linalg.eigvalsh(rows @ rows.T / n).mean())


@pytest.fixture
def exact(rows, vectors, damping):
    return solved(rows, vectors, damping)


def test_conjugate_gradients_converge_to_the_dense_solution(rows, vectors, damping, exact):
    got = conjugate_gradients(product_with(rows), vectors, damping=damping, iterations=200)
    assert_close(got, exact, rtol=1e-7, atol=1e-7 * float(exact.abs().max()))


def test_conjugate_gradients_are_exact_after_as_many_steps_as_there_are_eigenvalues(vectors):
    rows = drawn(5, k)
    got = conjugate_gradients(product_with(rows), vectors, damping=0.3, iterations=6)
    assert_close(got, solved(rows, vectors, 0.3))


def test_conjugate_gradients_take_queries_of_any_size_and_zero(rows, vectors, damping, exact):
    scales = torch.tensor([1e-8, 1.0, 1e8, 0.0], dtype=torch.float64)[:, None]
    got = conjugate_gradients(product_with(rows), scales * vectors, damping=damping, iterations=200)
    assert_close(got[:3] / scales[:3], exact[:3], rtol=1e-6, atol=1e-6 * float(exact.abs().max()))
    assert (got[3] == 0).all()


def test_lissa_converges_to_the_dense_solution(rows, vectors, damping, exact):
    scale = float(torch.linalg.eigvalsh(rows @ rows.T / n)[-1]) + damping
    steps = int(20 * scale / damping)  # the flattest direction is off by e^-20
    got = lissa(product_with(rows), vectors, damping=damping, scale=scale, iterations=steps)
    assert_close(got, exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))


def test_lissa_on_batches_comes_near(rows, vectors, damping, exact):
    # A batch's largest eigenvalue may be n / batch times that of all rows.
    scale = 3 * (float(torch.linalg.eigvalsh(rows @ rows.T / n)[-1]) + damping)
    product = product_with(rows, batch=10)
    steps = int(5 * scale / damping)
    runs = [
        lissa(product, vectors, damping=damping, scale=scale, iterations=steps) for _ in range(8)
    ]
    errors = (torch.stack(runs).mean(dim=0) - exact).norm(dim=1) / exact.norm(dim=1)
    # The noise of one run is of the order of √(damping / scale); e^-5 of the start is left.
    assert float(errors.max()) < 0.1


def test_lissa_says_when_it_diverges(rows, vectors, damping):
    with pytest.raises(NumericalError, match="scale"):
        lissa(product_with(rows), vectors, damping=damping, scale=0.01, iterations=2000)
