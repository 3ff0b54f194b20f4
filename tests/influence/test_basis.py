import math
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from influence.basis import Basis, LayerBasis, load_basis, save_basis
from influence.curvature import random_orthonormal
from influence.whitening import LowRankWhitening

DAMPING = 0.2


def _layer(name: str, leader: str, r_out: int, r_in: int, *, seed: int) -> LayerBasis:
    generator = torch.Generator().manual_seed(seed)
    p_in = random_orthonormal(r_in, 9, seed=hash_of(leader)).float()
    return LayerBasis(
        name,
        leader,
        p_in,
        random_orthonormal(r_out, 8, seed=seed).float(),
        torch.rand(r_out, r_in, generator=generator, dtype=torch.float64) ** 3 * 10.0**seed,
    )


def hash_of(name: str) -> int:
    return sum(name.encode())


def _basis(*, dims: int, joint: LowRankWhitening | None = None) -> Basis:
    layers = (
        _layer("a.query", "a.query", 3, 4, seed=0),
        _layer("a.key", "a.query", 2, 4, seed=1),
        _layer("b", "b", 5, 2, seed=2),
    )
    return Basis(layers, DAMPING, dims, 11, joint)


def _raw_basis(*, dims: int, joint: LowRankWhitening | None = None) -> Basis:
    """Full covariances from 7 vectors, one of the layers never reached by a gradient."""
    bare = _basis(dims=dims)
    layers = []
    for i, layer in enumerate(bare.layers):
        generator = torch.Generator().manual_seed(20 + i)
        sample = torch.randn(7, layer.coordinates, generator=generator) * (i != 1)
        covariance = LowRankWhitening.fit(sample, damping=DAMPING)
        layers.append(replace(layer, covariance=covariance))
    return replace(bare, layers=tuple(layers), joint=joint)


def _coordinates(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 30, generator=torch.Generator().manual_seed(seed))


def _dense_curvature(basis: Basis) -> torch.Tensor:
    """``Λ + λI`` with the λ of each layer, ``[K]`` float64."""
    return torch.cat(
        [
            (layer.eigenvalues + DAMPING * layer.eigenvalues.mean()).flatten()
            for layer in basis.layers
        ]
    )


def test_scores_are_those_of_the_damped_inverse_curvature():
    basis = _basis(dims=100)
    q, z = _coordinates(3, seed=1), _coordinates(5, seed=2)
    got = basis.whitened(q) @ basis.whitened(z).T
    want = (q.double() / _dense_curvature(basis)) @ z.double().T
    assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * want.abs().max().item())


def test_scores_with_joint_whitening_are_those_of_the_dense_solve():
    bare = _basis(dims=12)
    sample = bare.sketched(_coordinates(8, seed=3))
    basis = _basis(dims=12, joint=LowRankWhitening.fit(sample, damping=1.0))
    q, z = _coordinates(3, seed=1), _coordinates(5, seed=2)
    covariance = sample.double().T @ sample.double() / 8
    damped = covariance + covariance.trace() / 8 * torch.eye(12, dtype=torch.float64)
    want = bare.sketched(q).double() @ torch.linalg.solve(damped, bare.sketched(z).double().T)
    got = basis.whitened(q) @ basis.whitened(z).T
    assert_close(got.double(), want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


def test_scores_of_raw_curvature_are_those_of_the_dense_solve_in_each_layer():
    basis = _raw_basis(dims=100)
    q, z = _coordinates(3, seed=1), _coordinates(5, seed=2)
    got = basis.whitened(q) @ basis.whitened(z).T
    want, start = torch.zeros(3, 5, dtype=torch.float64), 0
    for i, layer in enumerate(basis.layers):
        part = slice(start, start + layer.coordinates)
        start = part.stop
        if i == 1:  # no gradient ever reached it: it adds nothing
            continue
        generator = torch.Generator().manual_seed(20 + i)
        sample = torch.randn(7, layer.coordinates, generator=generator).double()
        covariance = sample.T @ sample / 7
        mu = DAMPING * covariance.trace() / torch.linalg.matrix_rank(sample)
        damped = covariance + mu * torch.eye(layer.coordinates, dtype=torch.float64)
        want += q[:, part].double() @ torch.linalg.solve(damped, z[:, part].double().T)
    assert_close(got.double(), want, rtol=1e-5, atol=1e-5 * want.abs().max().item())


@pytest.mark.parametrize("make", [_basis, _raw_basis], ids=["diagonal", "raw"])
@pytest.mark.parametrize("dims", [100, 12], ids=["not sketched", "sketched"])
@pytest.mark.parametrize("joint", [None, 0.5, math.inf])
def test_back_is_the_transpose_of_whitened(make, dims, joint):
    basis = make(dims=dims)
    if joint is not None:
        whitening = LowRankWhitening.fit(basis.sketched(_coordinates(8, seed=3)), damping=joint)
        basis = make(dims=dims, joint=whitening)
    matrix = basis.whitened(torch.eye(30))  # row k is the image of coordinate k, [K, D]
    vectors = torch.randn(4, basis.vector_dims, generator=torch.Generator().manual_seed(5))
    want = vectors.double() @ matrix.double().T
    got = basis.back(vectors)
    assert got.shape == (4, 30)
    assert_close(got.double(), want, rtol=1e-5, atol=1e-6 * want.abs().max().item())
    z = _coordinates(5, seed=2)
    score = basis.whitened(z).double() @ vectors.double().T
    parts = z.double() @ got.double().T
    assert_close(parts, score, rtol=1e-5, atol=1e-6 * score.abs().max().item())


def test_a_vector_has_as_many_numbers_as_there_are_or_as_were_asked_for():
    assert _basis(dims=100).vector_dims == 30
    assert _basis(dims=12).vector_dims == 12
    assert _basis(dims=12).whitened(_coordinates(2)).shape == (2, 12)
    assert _basis(dims=100).coordinates == 30


@pytest.mark.parametrize("make", [_basis, _raw_basis], ids=["diagonal", "raw"])
@pytest.mark.parametrize("joint", ["none", "fitted", "off"])
def test_what_is_saved_is_what_is_loaded(tmp_path, make, joint):
    bare = make(dims=12)
    damping = {"none": 1.0, "fitted": 0.7, "off": math.inf}[joint]
    whitening = LowRankWhitening.fit(bare.sketched(_coordinates(8)), damping=damping)
    basis = bare if joint == "none" else make(dims=12, joint=whitening)
    path = tmp_path / "basis.safetensors"
    save_basis(basis, path)
    settings = {"damping": DAMPING, "joint_damping": damping, "dims": 12, "seed": 11}
    names = [{"name": layer.name, "leader": layer.leader} for layer in basis.layers]
    loaded = load_basis(path, settings, names)
    x = _coordinates(4, seed=9)
    assert torch.equal(loaded.whitened(x), basis.whitened(x))
    assert loaded.leaders == basis.leaders
    for before, after in zip(basis.layers, loaded.layers, strict=True):
        assert torch.equal(before.p_in, after.p_in)
        assert torch.equal(before.p_out, after.p_out)
        assert torch.equal(before.eigenvalues, after.eigenvalues)
    again = tmp_path / "again.safetensors"
    save_basis(loaded, again)
    assert again.read_bytes() == path.read_bytes()


def test_layers_that_share_an_input_share_one_projection(tmp_path):
    basis = _basis(dims=12)
    save_basis(basis, tmp_path / "basis")
    with safe_open(tmp_path / "basis", framework="pt") as file:
        stored = {key for key in file.keys() if key.startswith("p_in/")}  # noqa: SIM118
    assert stored == {"p_in/a.query", "p_in/b"}
    query, key, other = basis.projections(torch.float32)
    assert query.p_in is key.p_in
    assert query.p_in is not other.p_in


def test_a_layer_describes_itself():
    layer = _basis(dims=12).layers[1]
    assert (layer.layer.name, layer.layer.d_in, layer.layer.d_out) == ("a.key", 9, 8)
    assert layer.coordinates == 8


@pytest.mark.parametrize("make", [_basis, _raw_basis], ids=["diagonal", "raw"])
def test_moving_to_a_device_changes_no_number(make):
    bare = make(dims=12)
    basis = make(dims=12, joint=LowRankWhitening.fit(bare.sketched(_coordinates(8)), damping=1))
    x = _coordinates(2)
    assert torch.equal(basis.to(torch.device("cpu")).whitened(x), basis.whitened(x))
    assert basis.device == torch.device("cpu")
