"""Curvatures, projections, labels, picked dampings and ranks against explicit gradients."""

import math

import pytest
import torch
from torch.testing import assert_close

from indexer.covariances import fit_covariances
from indexer.fit import fit_basis
from indexer.progress import Silence
from indexer.projections import leading_projections
from influence.curvature import random_orthonormal
from influence.encoder import GradientEncoder, LanguageModelLoss, input_leaders
from influence.errors import InvalidInput
from influence.fisher import SampledLabelLoss
from influence.layers import select_layers
from influence.manifest import IndexSettings
from influence.ranks import Ranks, logging_cost, uniform_ranks
from influence.shrinkage import (
    JOINT_GRID,
    LAYER_GRID,
    diagonal_losses,
    joint_losses,
    layer_losses,
    pick,
    raw_losses,
)
from influence.tokens import Passage


@pytest.fixture
def loaded(tokenizer, as_loaded, new_llama):
    """One model is enough here: what differs between models is tested elsewhere."""
    return as_loaded(new_llama(), tokenizer)


@pytest.fixture
def sample(token_sequence) -> list[Passage]:
    """Passages of several lengths; some have a prompt that carries no loss."""
    sequences = [
        token_sequence(4 + 3 * (i % 7), seed=i, first_target=1 + 2 * (i % 2)) for i in range(24)
    ]
    return [Passage(f"d{i}#0", f"d{i}", 0, 0, 1, s) for i, s in enumerate(sequences)]


@pytest.fixture
def fit(tmp_path):
    def run(loaded, sample, **settings):
        chosen = {"rank": 4, "dims": 100_000, "batch_tokens": 64, **settings}
        return fit_basis(
            loaded,
            sample,
            IndexSettings(**chosen),
            spool=tmp_path / "spool",
            reporter=Silence(),
        )

    return run


@pytest.fixture
def projected(loaded, sample, explicit_gradients):
    """Projected gradients of the sample by plain autograd, ``[n, r_out · r_in]`` of each layer."""

    def of(basis):
        names = [layer.name for layer in basis.layers]
        rows = [explicit_gradients(loaded.model, names, p.tokens) for p in sample]
        return [
            torch.stack(
                [
                    (layer.p_out.double() @ row[layer.name] @ layer.p_in.double().T).flatten()
                    for row in rows
                ]
            )
            for layer in basis.layers
        ]

    return of


def _whitened_by_hand(projected, damping):
    """``(C + μI)^-½ G`` of each layer with the dense covariance, side by side."""
    parts = []
    for rows in projected:
        covariance = rows.T @ rows / len(rows)
        rank = int(torch.linalg.matrix_rank(rows))
        mu = damping * covariance.trace() / rank
        values, vectors = torch.linalg.eigh(covariance + mu * torch.eye(len(covariance)))
        parts.append(rows @ vectors @ torch.diag(values.rsqrt()) @ vectors.T)
    return torch.cat(parts, dim=1)


def test_raw_curvature_is_the_dense_covariance_of_each_layer(loaded, sample, fit, projected):
    rank = 6  # 36 coordinates a layer and 24 passages
    fitted = fit(loaded, sample, hessian="raw", rank=rank, damping=0.3, joint_damping=math.inf)
    want = _whitened_by_hand(projected(fitted.basis), 0.3)
    got = GradientEncoder(loaded, fitted.basis).encode([p.tokens for p in sample]).vectors
    assert (got - want).norm() < 1e-4 * want.norm()
    layer = fitted.basis.layers[0]
    assert layer.covariance is not None
    assert layer.covariance.vectors.shape == (rank * rank, len(sample))  # never 36 x 36


def test_kfac_multiplies_the_eigenvalues_of_the_factors(loaded, sample, fit):
    fitted = fit(loaded, sample, hessian="kfac", rank=100)
    layers = select_layers(loaded.model)
    leaders = input_leaders(loaded, layers)
    covariances = fit_covariances(
        LanguageModelLoss(loaded),
        sample,
        layers,
        leaders,
        columns=200,
        token_budget=64,
        seed=0,
        reporter=Silence(),
    )
    projections = leading_projections(layers, leaders, covariances, fitted.settings)
    tokens = sum(len(p.tokens) for p in sample) / len(sample)
    for layer in fitted.basis.layers:
        a, b = projections.of(layer.name)
        # All directions are kept, so these are the whole covariances.
        total = tokens * a.trace * b.trace
        assert_close(float(layer.eigenvalues.sum()), total, rtol=1e-4, atol=0)
        want = tokens * b.eigenvalues[:, None] * a.eigenvalues[None, :]
        assert_close(layer.eigenvalues, want, rtol=1e-4, atol=1e-9 * want.max().item())


def test_random_projections_need_no_covariances(loaded, sample, fit, projected):
    fitted = fit(loaded, sample, projection="random", hessian="raw", joint_damping=math.inf)
    again = fit(loaded, sample[:10], projection="random")
    seeds = set()
    for layer, other, entry in zip(
        fitted.basis.layers, again.basis.layers, fitted.layers, strict=True
    ):
        assert_close(layer.p_in @ layer.p_in.T, torch.eye(4), rtol=0, atol=1e-6)
        assert_close(layer.p_out @ layer.p_out.T, torch.eye(4), rtol=0, atol=1e-6)
        assert torch.equal(layer.p_in, other.p_in)  # of the seed alone
        assert torch.equal(layer.p_out, other.p_out)
        assert entry.share_kept_in == pytest.approx(4 / entry.d_in)
        seeds.add(float(layer.p_out[0, 0]))
    assert len(seeds) == len(fitted.layers)  # no two layers have the same
    first = fitted.basis.layers[0]
    assert torch.equal(first.p_in, random_orthonormal(4, 24, seed=2_000_000).float())
    assert (fitted.entry.covariance_passages, fitted.entry.covariance_tokens) == (0, 0)
    want = _whitened_by_hand(projected(fitted.basis), 0.1)
    got = GradientEncoder(loaded, fitted.basis).encode([p.tokens for p in sample]).vectors
    assert (got - want).norm() < 1e-4 * want.norm()


def test_sampled_labels_fit_the_curvature_of_the_drawn_tokens(loaded, sample, fit):
    fitted = fit(loaded, sample, labels="sampled", rank=5)
    drawn = SampledLabelLoss(LanguageModelLoss(loaded), seed=0)
    rows, _ = GradientEncoder(drawn, fitted.basis).coordinates([p.tokens for p in sample])
    got = torch.cat([layer.eigenvalues.flatten() for layer in fitted.basis.layers])
    want = rows.double().square().mean(dim=0)
    assert_close(got, want, rtol=1e-4, atol=1e-6 * want.max().item())
    empirical = fit(loaded, sample, rank=5)
    other = torch.cat([layer.eigenvalues.flatten() for layer in empirical.basis.layers])
    assert (got - other).norm() > 0.05 * other.norm()


@pytest.mark.parametrize("hessian", ["ekfac", "raw", "kfac"])
def test_auto_picks_what_held_out_gradients_like_best(loaded, sample, fit, projected, hessian):
    fitted = fit(loaded, sample, hessian=hessian, rank=4, damping="auto", joint_damping="auto")
    order = _batch_order(sample)  # halves are every second row as the batches came
    losses = torch.zeros(len(LAYER_GRID), dtype=torch.float64)
    for layer, rows in zip(fitted.basis.layers, projected(fitted.basis), strict=True):
        rows = rows[order]
        if hessian == "kfac":
            losses += diagonal_losses(layer.eigenvalues.flatten(), rows, LAYER_GRID)
        else:
            losses += (raw_losses if hessian == "raw" else layer_losses)(rows)
    damping = pick(losses, LAYER_GRID)
    rows = torch.cat(projected(fitted.basis), dim=1)[order]
    joint_damping = pick(joint_losses(fitted.basis.sketched(rows.float())), JOINT_GRID)
    assert fitted.settings.damping == damping == fitted.basis.damping
    assert fitted.settings.joint_damping == joint_damping
    assert fitted.entry.picked["damping"].startswith(f"{damping:g}, by the angular likelihood")
    assert "24 passages" in fitted.entry.picked["joint_damping"]


def _batch_order(sample):
    from indexer.batches import batches

    return [i for group in batches(sample, token_budget=64) for i in group]


def test_what_was_given_is_not_picked(loaded, sample, fit):
    fitted = fit(loaded, sample, damping=0.02, joint_damping=math.inf)
    assert (fitted.settings.damping, fitted.settings.joint_damping) == (0.02, math.inf)
    assert fitted.entry.picked == {}
    assert fit(loaded, sample, hessian="identity", damping="auto").settings.damping == 0.1


def test_a_damping_is_not_picked_from_a_handful(loaded, sample, fit):
    with pytest.raises(InvalidInput, match="from 5 passages"):
        fit(loaded, sample[:5], damping="auto")


def test_ranks_chosen_by_themselves_cost_no_more(loaded, sample, fit):
    fitted = fit(loaded, sample, rank="auto", rank_budget=8)
    layers = select_layers(loaded.model)
    leaders = fitted.basis.leaders
    ranks = Ranks(
        {e.name: e.r_in for e in fitted.layers if e.leader == e.name},
        {e.name: e.r_out for e in fitted.layers},
    )
    spent = logging_cost(layers, leaders, ranks)
    budget = logging_cost(layers, leaders, uniform_ranks(layers, leaders, 8))
    assert 0.8 * budget < spent <= budget
    assert len({*ranks.inputs.values(), *ranks.outputs.values()}) > 1
    for layer, entry in zip(fitted.basis.layers, fitted.layers, strict=True):
        assert layer.eigenvalues.shape == (entry.r_out, entry.r_in)
        assert layer.p_in.shape == (entry.r_in, entry.d_in)
    vectors = GradientEncoder(loaded, fitted.basis).encode([sample[0].tokens]).vectors
    assert vectors.shape == (1, fitted.basis.coordinates)


def test_ranks_grow_to_the_full_width_where_the_budget_allows_it(loaded, sample, fit):
    fitted = fit(loaded, sample, rank="auto", rank_budget=64)
    assert all((e.r_in, e.r_out) == (e.d_in, e.d_out) for e in fitted.layers)
    assert fitted.entry.share_of_curvature == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("hessian", ["ekfac", "kfac", "raw"])
def test_fewer_passages_than_the_rank_still_give_a_sound_basis(
    loaded, sample, fit, caplog, hessian
):
    fitted = fit(loaded, sample[:2], rank=20, hessian=hessian, fit_tokens=5)
    vectors = GradientEncoder(loaded, fitted.basis).encode([p.tokens for p in sample]).vectors
    assert torch.isfinite(vectors).all()
    assert (vectors.norm(dim=1) > 0).all()
    assert "fewer than the rank of 20" in caplog.text


@pytest.mark.parametrize("hessian", ["ekfac", "kfac", "raw"])
def test_a_layer_without_gradient_is_named_and_adds_nothing(
    new_llama, as_loaded, tokenizer, sample, fit, caplog, hessian
):
    model = new_llama()
    model.model.layers[1].mlp.down_proj.weight.data.zero_()  # nothing flows back through it
    loaded = as_loaded(model, tokenizer)
    fitted = fit(loaded, sample, hessian=hessian, damping="auto")
    assert "no gradient reached model.layers.1.mlp.up_proj" in caplog.text
    encoder = GradientEncoder(loaded, fitted.basis)
    coordinates, _ = encoder.coordinates([p.tokens for p in sample])
    start = 0
    for layer in fitted.basis.layers:
        part = slice(start, start + layer.coordinates)
        start = part.stop
        if layer.name == "model.layers.1.mlp.up_proj":
            coordinates[:, part] = 7.0  # whatever comes there later
            got = fitted.basis.layer_whitening.forward(coordinates)[:, part]
            assert got.count_nonzero() == 0
    assert torch.isfinite(encoder.encode([p.tokens for p in sample]).vectors).all()


def test_the_joint_covariance_is_fitted_also_where_it_is_off(loaded, sample, fit):
    off, on = (fit(loaded, sample, joint_damping=c, dims=40) for c in (math.inf, 0.5))
    assert off.basis.joint is not None
    assert on.basis.joint is not None
    assert torch.equal(off.basis.joint.vectors, on.basis.joint.vectors)
    assert off.entry.joint_rank == 0
    assert on.entry.joint_rank == 24
    u = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(off.basis.joint.forward(u), u)


@pytest.mark.parametrize(
    "wrong", [{"hessian": "kfac"}, {"rank": "auto"}], ids=["kfac", "rank auto"]
)
def test_what_needs_spectra_cannot_have_random_projections(wrong):
    with pytest.raises(ValueError, match="needs the spectra of the covariances"):
        IndexSettings(projection="random", **wrong)
