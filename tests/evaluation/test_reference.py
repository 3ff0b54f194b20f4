"""Every solver against the dense solve, and the dense solve against its definition."""

import pytest
import torch
from torch.testing import assert_close

from evaluation.reference import (
    conjugate_gradients,
    cosine_scores,
    dense_solve,
    dot_scores,
    gauss_newton_rows,
    lissa,
    low_rank_product,
    low_rank_solve,
    mean_eigenvalue,
    sampled_product,
)
from influence.errors import NumericalError

n, k, Q, C = 30, 50, 4, 3


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def rows():
    # Eigenvalues over three orders of magnitude, as curvatures have.
    return drawn(n, k) * torch.logspace(0, -1.5, k, dtype=torch.float64)


@pytest.fixture
def vectors():
    return drawn(Q, k, seed=1)


@pytest.fixture
def damping(rows):
    return 0.1 * mean_eigenvalue(rows)


@pytest.fixture
def exact(rows, vectors, damping):
    return dense_solve(rows.T @ rows / n, vectors, damping=damping)


def test_the_dense_solution_solves_the_system(rows, vectors, damping, exact):
    hessian = rows.T @ rows / n + damping * torch.eye(k, dtype=torch.float64)
    assert_close(exact @ hessian, vectors)


def test_the_low_rank_solution_is_the_dense_one(rows, vectors, damping, exact):
    assert_close(low_rank_solve(rows, vectors, damping=damping), exact)
    wide = drawn(3 * k, k, seed=2)  # more rows than coordinates
    dense = dense_solve(wide.T @ wide / len(wide), vectors, damping=damping)
    assert_close(low_rank_solve(wide, vectors, damping=damping), dense)


def test_the_mean_eigenvalue_is_that_of_the_positive_part(rows):
    values = torch.linalg.eigvalsh(rows.T @ rows / n)
    assert mean_eigenvalue(rows) == pytest.approx(float(values[-n:].mean()))
    assert mean_eigenvalue(torch.zeros(3, k, dtype=torch.float64)) == 0


def test_conjugate_gradients_converge_to_the_dense_solution(rows, vectors, damping, exact):
    got = conjugate_gradients(low_rank_product(rows), vectors, damping=damping, iterations=200)
    assert_close(got, exact, rtol=1e-7, atol=1e-7 * float(exact.abs().max()))


def test_conjugate_gradients_are_exact_after_as_many_steps_as_there_are_eigenvalues(vectors):
    rows = drawn(5, k)
    got = conjugate_gradients(low_rank_product(rows), vectors, damping=0.3, iterations=6)
    assert_close(got, dense_solve(rows.T @ rows / 5, vectors, damping=0.3))


def test_conjugate_gradients_take_queries_of_any_size_and_zero(rows, vectors, damping, exact):
    scales = torch.tensor([1e-8, 1.0, 1e8, 0.0], dtype=torch.float64)[:, None]
    got = conjugate_gradients(
        low_rank_product(rows), scales * vectors, damping=damping, iterations=200
    )
    assert_close(got[:3] / scales[:3], exact[:3], rtol=1e-6, atol=1e-6 * float(exact.abs().max()))
    assert (got[3] == 0).all()


def test_lissa_converges_to_the_dense_solution(rows, vectors, damping, exact):
    scale = float(torch.linalg.eigvalsh(rows @ rows.T / n)[-1]) + damping
    steps = int(20 * scale / damping)  # the flattest direction is off by e^-20
    got = lissa(low_rank_product(rows), vectors, damping=damping, scale=scale, iterations=steps)
    assert_close(got, exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))


def test_lissa_on_batches_comes_near(rows, vectors, damping, exact):
    # A batch's largest eigenvalue may be n / batch times that of all rows.
    scale = 3 * (float(torch.linalg.eigvalsh(rows @ rows.T / n)[-1]) + damping)
    product = sampled_product(rows, batch=10, seed=3)
    steps = int(5 * scale / damping)
    runs = [
        lissa(product, vectors, damping=damping, scale=scale, iterations=steps) for _ in range(8)
    ]
    errors = (torch.stack(runs).mean(dim=0) - exact).norm(dim=1) / exact.norm(dim=1)
    # The noise of one run is of the order of √(damping / scale); e^-5 of the start is left.
    assert float(errors.max()) < 0.1


def test_lissa_says_when_it_diverges(rows, vectors, damping):
    with pytest.raises(NumericalError, match="scale"):
        lissa(low_rank_product(rows), vectors, damping=damping, scale=0.01, iterations=2000)


def test_a_matrix_that_is_not_positive_is_told(vectors):
    with pytest.raises(NumericalError, match="positive definite"):
        dense_solve(-torch.eye(k, dtype=torch.float64), vectors, damping=0.5)


def test_gauss_newton_rows_are_those_of_the_hessian_of_a_linear_softmax_model():
    x, w = drawn(6, 4), drawn(C, 4, seed=5)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(flat):
        return torch.nn.functional.cross_entropy(x @ flat.view(C, 4).T, labels, reduction="sum")

    # Linear in its weights, so that the Gauss-Newton matrix is the Hessian.
    hessian = torch.autograd.functional.hessian(loss, w.flatten())
    jacobian = torch.einsum("cd,ni->ncdi", torch.eye(C, dtype=torch.float64), x).flatten(2)
    rows = gauss_newton_rows(jacobian, (x @ w.T).softmax(dim=1))
    assert_close(rows.T @ rows, hessian)


def test_dot_and_cosine(rows, vectors):
    assert_close(dot_scores(vectors, rows), torch.einsum("qk,nk->qn", vectors, rows))
    cosines = cosine_scores(rows, rows)
    assert_close(cosines.diagonal(), torch.ones(n, dtype=torch.float64))
    assert (cosine_scores(torch.zeros(1, k).double(), rows) == 0).all()
