import hashlib

import pytest
import torch
from torch.testing import assert_close

from influence.curvature import (
    CovarianceSketch,
    Subspace,
    damped_inverse_root,
    kfac_eigenvalues,
    random_orthonormal,
)
from influence.errors import NumericalError

CPU = torch.device("cpu")


def _fitted(rows: torch.Tensor, columns: int, rank: int, *, seed: int = 0) -> Subspace:
    sketch = CovarianceSketch(rows.shape[1], columns, seed=seed, device=CPU)
    for block in rows.split(37):
        sketch.update(block)
    return sketch.subspace(rank, seed=1)


def _rows_with_spectrum(spectrum: torch.Tensor, n: int, *, seed: int = 0) -> torch.Tensor:
    """``[n, d]`` float32 whose second moment has exactly these eigenvalues (up to float32)."""
    left = random_orthonormal(len(spectrum), n, seed=seed)
    right = random_orthonormal(len(spectrum), len(spectrum), seed=seed + 1)
    return (left.T * (spectrum * n).sqrt() @ right).float()


def _dense(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues by falling size, and eigenvectors as rows."""
    wide = rows.double()
    values, vectors = torch.linalg.eigh(wide.T @ wide / len(wide))
    return values.flip(0), vectors.flip(1).T


def _assert_orthonormal(basis: torch.Tensor) -> None:
    identity = torch.eye(len(basis), dtype=torch.float64)
    assert_close(basis @ basis.T, identity, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("rows", "width"), [(3, 3), (4, 9), (1, 5)])
def test_random_orthonormal_rows(rows, width):
    q = random_orthonormal(rows, width, seed=3)
    assert q.shape == (rows, width)
    _assert_orthonormal(q)
    assert torch.equal(q, random_orthonormal(rows, width, seed=3))
    assert not torch.equal(q, random_orthonormal(rows, width, seed=4))


@pytest.mark.parametrize("columns", [20, 64])
def test_with_enough_columns_nothing_is_approximated(columns):
    spectrum = 0.7 ** torch.arange(20, dtype=torch.float64)
    rows = _rows_with_spectrum(spectrum, 200)
    values, vectors = _dense(rows)
    got = _fitted(rows, columns, 6)
    assert_close(got.eigenvalues, values[:6], rtol=1e-5, atol=0)
    # The eigenvalues are far apart, so each vector is determined up to its sign.
    assert_close((got.basis @ vectors[:6].T).abs(), torch.eye(6).double(), rtol=0, atol=1e-4)
    assert_close(got.trace, float(values.sum()), rtol=1e-5, atol=0)
    assert_close(got.share_kept, float(values[:6].sum() / values.sum()), rtol=1e-5, atol=0)
    _assert_orthonormal(got.basis)


@pytest.mark.parametrize("decay", [0.5, 0.8, 0.95])
def test_the_captured_trace_is_within_the_nystrom_bound(decay):
    """With ``l`` random columns ``E tr(A - Â) ≤ min_k (1 + k/(l-k-1)) Σ_{j>k} λ_j``.

    (Gittens and Mahoney 2016; Frangella et al. 2021, proposition 2.2.) As ``A ⪰ Â``, the basis of
    the ``r`` leading directions of ``Â`` captures at least ``Σ_{i≤r} λ_i - tr(A - Â)``.
    """
    width, columns, rank = 60, 16, 8
    spectrum = decay ** torch.arange(width, dtype=torch.float64)
    rows = _rows_with_spectrum(spectrum, 150)
    covariance = rows.double().T @ rows.double() / len(rows)
    bound = min((1 + k / (columns - k - 1)) * float(spectrum[k:].sum()) for k in range(columns - 1))
    short = []
    for seed in range(20):
        got = _fitted(rows, columns, rank, seed=seed)
        _assert_orthonormal(got.basis)
        captured = float((got.basis @ covariance @ got.basis.T).trace())
        short.append(float(spectrum[:rank].sum()) - captured)
        assert captured >= float(got.eigenvalues.sum()) * (1 - 1e-5)
        assert (got.eigenvalues <= spectrum[:rank] * (1 + 1e-4)).all()  # never too large
        assert_close(got.trace, float(spectrum.sum()), rtol=1e-5, atol=0)
    assert sum(short) / len(short) <= bound
    assert min(short) >= -1e-5 * float(spectrum.sum())  # and never above the optimum


def test_twice_the_rank_in_columns_is_nearly_optimal_on_a_decaying_spectrum():
    """The setting of the indexer, on the ``1/j`` spectrum that activations have."""
    spectrum = 1 / torch.arange(1, 257, dtype=torch.float64)
    rows = _rows_with_spectrum(spectrum, 600)
    covariance = rows.double().T @ rows.double() / len(rows)
    got = _fitted(rows, 64, 32)
    captured = float((got.basis @ covariance @ got.basis.T).trace())
    assert captured > 0.95 * float(spectrum[:32].sum())


@pytest.mark.parametrize("columns", [8, 24], ids=["sketched", "exact"])
@pytest.mark.parametrize("rank_of_data", [1, 3])
def test_a_covariance_of_low_rank_is_completed_orthonormally(columns, rank_of_data):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(100, rank_of_data, generator=generator) @ torch.randn(
        rank_of_data, 24, generator=generator
    )
    got = _fitted(rows, columns, 6)
    values, vectors = _dense(rows)
    assert got.basis.shape == (6, 24)
    _assert_orthonormal(got.basis)
    assert_close(got.eigenvalues[:rank_of_data], values[:rank_of_data], rtol=1e-4, atol=0)
    # What is left is rounding of the float32 products, and must stay as small as that.
    assert got.eigenvalues[rank_of_data:].abs().max() < 1e-5 * values[0]
    inside = vectors[:rank_of_data] @ got.basis.T
    assert_close(inside @ inside.T, torch.eye(rank_of_data).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_rounding_never_passes_for_an_eigenvalue(seed):
    """Fewer tokens than the layer is wide: half the computed eigenvalues are noise about zero."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.linspace(0, -3, 96)
    rows = torch.randn(12, 96, generator=generator) * scale * 10
    got = _fitted(rows, 96, 64)
    values, _ = _dense(rows)
    assert (got.eigenvalues - values[:64]).abs().max() < 1e-5 * values[0]
    assert got.share_kept <= 1 + 1e-5


@pytest.mark.parametrize("columns", [4, 24], ids=["sketched", "exact"])
def test_a_layer_that_nothing_reached_still_gets_a_basis(columns):
    got = _fitted(torch.zeros(10, 24), columns, 6)
    _assert_orthonormal(got.basis)
    assert got.basis.shape == (6, 24)
    assert got.eigenvalues.tolist() == [0.0] * 6
    assert got.share_kept == 1.0


def test_the_rank_is_at_most_the_width():
    got = _fitted(torch.randn(50, 5, generator=torch.Generator().manual_seed(0)), 20, 9)
    assert got.basis.shape == (5, 5)
    _assert_orthonormal(got.basis)
    assert_close(got.share_kept, 1.0, rtol=0, atol=1e-6)


def test_signs_are_fixed_and_bits_repeat():
    rows = torch.randn(80, 30, generator=torch.Generator().manual_seed(2))
    for columns in (10, 30):
        first, second = _fitted(rows, columns, 5), _fitted(rows, columns, 5)
        assert torch.equal(first.basis, second.basis)
        largest = first.basis.gather(1, first.basis.abs().argmax(dim=1, keepdim=True))
        assert (largest > 0).all()


def test_the_order_of_blocks_hardly_matters():
    rows = torch.randn(80, 30, generator=torch.Generator().manual_seed(2))
    assert_close(
        _fitted(rows, 30, 5).eigenvalues,
        _fitted(rows.flip(0), 30, 5).eigenvalues,
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_vectors_whose_square_is_not_finite_are_left_out_and_counted(value):
    rows = torch.randn(80, 12, generator=torch.Generator().manual_seed(2))
    bad = rows.clone()
    bad[[3, 50], [1, 7]] = value
    good = torch.ones(80, dtype=torch.bool)
    good[[3, 50]] = False
    sketch = CovarianceSketch(12, 12, seed=0, device=CPU)
    sketch.update(bad)
    assert sketch.left_out == 2
    assert sketch.count == 78
    got, want = sketch.subspace(4, seed=1), _fitted(rows[good], 12, 4)
    assert_close(got.eigenvalues, want.eigenvalues, rtol=1e-5, atol=0)
    assert_close(got.trace, want.trace, rtol=1e-5, atol=0)


def test_a_covariance_that_is_not_finite_is_refused():
    sketch = CovarianceSketch(6, 6, seed=0, device=CPU)
    sketch.update(torch.ones(3, 6))
    sketch.sketch[2, 2] = float("nan")
    with pytest.raises(NumericalError, match="width 6 over 3 vectors"):
        sketch.subspace(2, seed=0)


def test_a_layer_whose_every_vector_was_left_out_is_refused_by_name():
    sketch = CovarianceSketch(6, 6, seed=0, device=CPU, name="the output gradients of h.0.mlp")
    sketch.update(torch.full((3, 6), float("nan")))
    with pytest.raises(NumericalError, match=r"output gradients of h\.0\.mlp .* 3 left out"):
        sketch.subspace(2, seed=0)


def test_a_covariance_that_will_not_decompose_is_refused_by_name(monkeypatch):
    sketch = CovarianceSketch(6, 6, seed=0, device=CPU, name="the inputs of h.0.mlp")
    sketch.update(torch.ones(3, 6))

    def fails(*_args, **_kwargs):
        raise torch.linalg.LinAlgError("the algorithm failed to converge")

    monkeypatch.setattr(torch.linalg, "eigh", fails)
    with pytest.raises(NumericalError, match=r"h\.0\.mlp .* will not decompose .*converge"):
        sketch.subspace(2, seed=0)


def test_kfac_is_ekfac_where_inputs_and_gradients_are_independent():
    """Tokens independent, inputs and output gradients too, gradients of mean 0: equal in scale."""
    generator = torch.Generator().manual_seed(0)
    passages, most, d_in, d_out = 4000, 6, 5, 4
    a_scale = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2])
    g_scale = torch.tensor([2.0, 1.0, 0.5, 0.1])
    a = torch.randn(passages, most, d_in, generator=generator) * a_scale
    g = torch.randn(passages, most, d_out, generator=generator) * g_scale
    lengths = torch.randint(1, most + 1, (passages,), generator=generator)
    real = torch.arange(most) < lengths[:, None]
    inputs, outputs = _fitted(a[real], d_in, d_in), _fitted(g[real], d_out, d_out)
    got = kfac_eigenvalues(inputs, outputs, tokens_per_passage=float(real.sum()) / passages)
    gradients = torch.einsum("nto,nti->noi", (g * real[..., None]).double(), a.double())
    projected = outputs.basis @ gradients @ inputs.basis.T
    # G has a kurtosis of about 10, so a mean of 4,000 squares is off by 5 %; 3 times that.
    assert_close(got, projected.square().mean(dim=0), rtol=0.15, atol=0)
    assert_close(
        float(got.sum()), float(projected.square().sum(dim=(1, 2)).mean()), rtol=0.1, atol=0
    )


def test_random_projections_are_the_same_on_every_machine():
    """Rounded: another LAPACK may differ in the last bits, and in nothing else."""
    q = random_orthonormal(3, 7, seed=11)
    digits = ",".join(f"{value:.6f}" for value in (q + 0.0).flatten().tolist())
    assert hashlib.sha256(digits.encode()).hexdigest()[:16] == "39bc95aa8fa18717"


def test_damped_inverse_root():
    values = torch.tensor([[4.0, 1.0], [0.25, 0.0]], dtype=torch.float64)
    mean = 5.25 / 4
    got = damped_inverse_root(values, damping=0.1)
    assert_close(got, 1 / (values + 0.1 * mean).sqrt(), rtol=1e-14, atol=0)


def test_damping_is_a_fraction_so_scale_goes_straight_through():
    values = torch.rand(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_close(
        damped_inverse_root(100 * values, damping=0.3),
        damped_inverse_root(values, damping=0.3) / 10,
    )


def test_a_layer_without_any_gradient_adds_nothing():
    got = damped_inverse_root(torch.zeros(2, 3, dtype=torch.float64), damping=0.1)
    assert got.count_nonzero() == 0


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan"), float("inf")])
def test_damping_must_be_positive(damping):
    with pytest.raises(ValueError, match="above 0"):
        damped_inverse_root(torch.ones(1, 1, dtype=torch.float64), damping=damping)
