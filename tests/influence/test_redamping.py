"""Rescaled vectors against those of the other dampings, fitted and applied from scratch."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from influence.basis import Basis, LayerBasis
from influence.errors import InvalidInput
from influence.redamping import FP16_ROUNDING, redamped_basis, rescaled, rounding
from influence.whitening import LowRankWhitening


def _sample(n: int, seed: int = 0) -> torch.Tensor:
    """Coordinates of two layers of 3 x 4 and 5 x 2, of many sizes."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 22, generator=generator) * 4.0 ** torch.linspace(1, -1, 22)


def _fitted(sample, *, hessian, damping, joint_damping, dims=100) -> Basis:
    layers, start = [], 0
    for name, (r_out, r_in) in {"a": (3, 4), "b": (5, 2)}.items():
        rows = sample[:, start : start + r_out * r_in]
        start += r_out * r_in
        values = rows.double().square().mean(dim=0).view(r_out, r_in)
        covariance = LowRankWhitening.fit(rows, damping=1.0) if hessian == "raw" else None
        p_in, p_out = torch.eye(r_in, 6), torch.eye(r_out, 7)
        layers.append(LayerBasis(name, name, p_in, p_out, values, covariance))
    bare = Basis(tuple(layers), damping, dims, seed=3)
    joint = LowRankWhitening.fit(bare.sketched(sample), damping=1.0)
    return replace(bare, joint=replace(joint, damping=joint_damping))


@pytest.mark.parametrize("hessian", ["ekfac", "raw"])
@pytest.mark.parametrize("n", [9, 60], ids=["fewer passages", "more passages"])
@pytest.mark.parametrize("old", [(0.1, 1.0), (0.02, math.inf)])
@pytest.mark.parametrize("new", [(0.1, 0.2), (1.0, 1.0), (0.005, 3.0), (0.02, math.inf)])
def test_it_is_the_basis_that_the_sample_gives_with_the_other_dampings(hessian, n, old, new):
    sample = _sample(n)
    before = _fitted(sample, hessian=hessian, damping=old[0], joint_damping=old[1])
    want = _fitted(sample, hessian=hessian, damping=new[0], joint_damping=new[1])
    got = redamped_basis(before, damping=new[0], joint_damping=new[1])
    x = _sample(7, seed=1)
    scale = want.whitened(x).norm()
    assert (got.whitened(x) - want.whitened(x)).norm() < 1e-4 * scale
    stored = rescaled(before.whitened(x), before, got)
    assert (stored - want.whitened(x)).norm() < 1e-4 * scale


@pytest.mark.parametrize("joint_damping", [0.2, 5.0, math.inf])
def test_the_joint_damping_changes_under_a_sketch_too(joint_damping):
    sample = _sample(9)
    settings = {"hessian": "ekfac", "damping": 0.1, "dims": 8}
    before = _fitted(sample, **settings, joint_damping=1.0)
    want = _fitted(sample, **settings, joint_damping=joint_damping)
    got = redamped_basis(before, damping=0.1, joint_damping=joint_damping)
    x = _sample(7, seed=1)
    assert_close(rescaled(before.whitened(x), before, got), want.whitened(x))
    assert_close(got.whitened(x), want.whitened(x))


def test_a_layers_damping_cannot_be_taken_out_of_a_sketch():
    basis = _fitted(_sample(9), hessian="ekfac", damping=0.1, joint_damping=1.0, dims=8)
    with pytest.raises(InvalidInput, match=r"adds 22 coordinates up to 8 numbers.*--damping 0\.5"):
        redamped_basis(basis, damping=0.5, joint_damping=1.0)


def test_without_a_joint_covariance_only_the_layers_can_change():
    basis = _fitted(_sample(9), hessian="ekfac", damping=0.1, joint_damping=1.0)
    bare = replace(basis, joint=None)
    with pytest.raises(InvalidInput, match="keeps no joint covariance"):
        redamped_basis(bare, damping=0.1, joint_damping=2.0)
    other = redamped_basis(bare, damping=0.7, joint_damping=math.inf)
    x = _sample(4, seed=1)
    assert_close(rescaled(bare.whitened(x), bare, other), other.whitened(x))


def test_a_coordinate_that_was_dropped_stays_dropped():
    sample = _sample(9)
    sample[:, :12] = 0  # no gradient reaches the first layer
    before = _fitted(sample, hessian="ekfac", damping=0.1, joint_damping=1.0)
    after = redamped_basis(before, damping=1.0, joint_damping=0.5)
    z = rescaled(before.whitened(sample), before, after)
    assert z[:, :12].count_nonzero() == 0
    assert torch.isfinite(z).all()


@pytest.mark.parametrize("new", [(0.1, 1.0), (0.1, 0.01), (10.0, 1.0)])
def test_the_rounding_error_is_what_it_is_said_to_be(new):
    sample = _sample(9)
    before = _fitted(sample, hessian="ekfac", damping=0.1, joint_damping=1.0)
    after = redamped_basis(before, damping=new[0], joint_damping=new[1])
    z = before.whitened(_sample(400, seed=1))
    norms = z.norm(dim=1, keepdim=True)
    stored = (z / norms).half().float()
    exact, got = rescaled(z, before, after), rescaled(stored * norms, before, after)
    exact, got = (torch.nn.functional.normalize(v, dim=1) for v in (exact, got))
    error = (got.half().float() - exact).norm(dim=1).square().mean().sqrt()
    told = rounding(stored, before, after, seed=0)
    # Drawn errors reach the limit of the rounding; real ones are spread evenly over the last bit,
    # whose size is between one and two halves of that limit.
    assert 0.4 * told < error < 1.1 * told
    assert told < 50 * FP16_ROUNDING


def test_rescaling_to_the_same_dampings_changes_nothing():
    basis = _fitted(_sample(9), hessian="raw", damping=0.1, joint_damping=1.0)
    z = basis.whitened(_sample(4, seed=1))
    assert torch.equal(rescaled(z, basis, basis), z)
