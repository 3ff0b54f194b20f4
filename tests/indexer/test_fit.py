"""The fitted basis against covariances and gradients computed one passage at a time."""

import copy

import pytest
import torch
from torch.testing import assert_close

from indexer.covariances import within_tokens
from indexer.fit import fit_basis
from indexer.progress import Silence
from influence.errors import NumericalError, OutOfMemory, StorageFull, UnknownLayers
from influence.manifest import IndexSettings
from influence.tokens import Passage
from influence.whitening import LowRankWhitening

BAD_TOKEN = 399  # of which the embedding can be spoilt


@pytest.fixture
def sample(token_sequence) -> list[Passage]:
    """Passages of several lengths; some have a prompt that carries no loss."""
    sequences = [
        token_sequence(4 + 3 * (i % 7), seed=i, vocabulary=399, first_target=1 + 2 * (i % 2))
        for i in range(24)
    ]
    return [Passage(f"d{i}#0", f"d{i}", 0, 0, 1, s) for i, s in enumerate(sequences)]


@pytest.fixture
def fit(tmp_path):
    def run(loaded, sample, **settings):
        chosen = {"rank": 200, "dims": 100_000, "batch_tokens": 64, **settings}
        return fit_basis(
            loaded,
            sample,
            IndexSettings(**chosen),
            spool=tmp_path / "spool",
            reporter=Silence(),
        )

    return run


def _moments(loaded, passages):
    """``E[a aᵀ]`` and ``E[g gᵀ]`` of every layer over all tokens, in float64, by plain autograd."""
    twin = copy.deepcopy(loaded.model).double().eval()
    inputs, outputs = {}, {}
    modules = {n: m for n, m in twin.named_modules() if n in _names(loaded)}

    def hook(module, args, output):
        name = next(n for n, m in modules.items() if m is module)
        seen[name] = (args[0], output)
        output.retain_grad()

    handles = [module.register_forward_hook(hook) for module in modules.values()]
    tokens = 0
    for passage in passages:
        seen: dict = {}
        sequence = passage.tokens
        logits = twin(input_ids=torch.tensor([sequence.input_ids])).logits[0]
        targets = [t for t in range(len(sequence)) if sequence.targets[t]]
        chosen = torch.tensor([sequence.input_ids[t] for t in targets])
        rows = logits[[t - 1 for t in targets]]
        torch.nn.functional.cross_entropy(rows, chosen, reduction="sum").backward()
        for name, (x, y) in seen.items():
            a, g = x[0].detach(), y.grad[0]
            inputs[name] = inputs.get(name, 0) + a.T @ a
            outputs[name] = outputs.get(name, 0) + g.T @ g
        tokens += len(sequence)
    for handle in handles:
        handle.remove()
    return (
        {name: total / tokens for name, total in inputs.items()},
        {name: total / tokens for name, total in outputs.items()},
    )


def _names(loaded):
    from influence.layers import select_layers

    return [layer.name for layer in select_layers(loaded.model)]


def _leading(covariance, rank):
    values, vectors = torch.linalg.eigh(covariance)
    return values.flip(0)[:rank], vectors.flip(1).T[:rank]


def test_projections_are_the_leading_eigenvectors_of_the_covariances(loaded, sample, fit):
    fitted = fit(loaded, sample)
    inputs, outputs = _moments(loaded, sample)
    for layer, entry in zip(fitted.basis.layers, fitted.layers, strict=True):
        for basis, covariance, share in (
            (layer.p_in, inputs[layer.name], entry.share_kept_in),
            (layer.p_out, outputs[layer.name], entry.share_kept_out),
        ):
            assert len(basis) == len(covariance)  # rank 200 is all of it
            basis = basis.double()
            rotated = basis @ covariance @ basis.T
            values, _ = _leading(covariance, len(basis))
            # In the eigenbasis the covariance is diagonal and its diagonal the eigenvalues.
            assert_close(rotated.diagonal(), values, rtol=1e-3, atol=1e-5 * values[0].item())
            off_diagonal = rotated - rotated.diagonal().diag()
            assert off_diagonal.abs().max() < 1e-4 * values[0]
            assert share == pytest.approx(1.0, abs=1e-5)
    assert fitted.entry.share_of_curvature == pytest.approx(1.0, abs=1e-5)


def test_a_low_rank_keeps_the_share_that_it_says(loaded, sample, fit):
    rank = 5
    fitted = fit(loaded, sample, rank=rank)
    inputs, outputs = _moments(loaded, sample)
    for layer, entry in zip(fitted.basis.layers, fitted.layers, strict=True):
        assert (entry.r_in, entry.r_out) == (rank, rank)
        for basis, covariance, share in (
            (layer.p_in.double(), inputs[layer.name], entry.share_kept_in),
            (layer.p_out.double(), outputs[layer.name], entry.share_kept_out),
        ):
            captured = float((basis @ covariance @ basis.T).trace() / covariance.trace())
            best = float(_leading(covariance, rank)[0].sum() / covariance.trace())
            # Ten columns for a rank of five: what it says is a lower bound of what it keeps.
            assert share <= captured + 1e-5
            assert captured <= best + 1e-5
            assert captured > 0.75 * best


def test_eigenvalues_are_the_mean_squares_of_explicit_projected_gradients(
    loaded, sample, fit, explicit_gradients
):
    fitted = fit(loaded, sample, rank=6)
    squares = dict.fromkeys(_names(loaded), 0.0)
    for passage in sample:
        gradients = explicit_gradients(loaded.model, list(squares), passage.tokens)
        for layer in fitted.basis.layers:
            projected = layer.p_out.double() @ gradients[layer.name] @ layer.p_in.double().T
            squares[layer.name] += projected.square() / len(sample)
    for layer in fitted.basis.layers:
        want = squares[layer.name]
        assert_close(layer.eigenvalues, want, rtol=1e-4, atol=1e-6 * want.max().item())
    assert fitted.entry.passages == len(sample)


def test_the_joint_whitening_is_that_of_the_sketched_explicit_gradients(
    loaded, sample, fit, explicit_gradients
):
    fitted = fit(loaded, sample, rank=6, dims=64, joint_damping=0.5)
    basis = fitted.basis
    names = [layer.name for layer in basis.layers]
    coordinates = []
    for passage in sample:
        gradients = explicit_gradients(loaded.model, names, passage.tokens)
        parts = [
            layer.p_out.double() @ gradients[layer.name] @ layer.p_in.double().T
            for layer in basis.layers
        ]
        coordinates.append(torch.cat([part.flatten() for part in parts]))
    sketched = basis.sketch.forward(torch.stack(coordinates) * basis.inverse_roots.double())
    want = LowRankWhitening.fit(sketched, damping=0.5)
    probe = torch.randn(5, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert basis.joint is not None
    got = basis.joint.forward(probe)
    assert (got - want.forward(probe)).norm() < 1e-4 * want.forward(probe).norm()
    assert fitted.entry.joint_rank == len(sample)


def test_the_identity_as_curvature_leaves_the_gradient_dot_product(loaded, sample, fit):
    fitted = fit(loaded, sample, rank=4, hessian="identity", joint_damping=float("inf"))
    for layer in fitted.basis.layers:
        assert torch.equal(layer.eigenvalues, torch.ones_like(layer.eigenvalues))
    assert fitted.entry.joint_rank == 0
    roots = fitted.basis.inverse_roots
    assert_close(roots, torch.full_like(roots, 1.1**-0.5))


def test_the_same_sample_gives_the_same_bits(loaded, sample, fit):
    first, second = fit(loaded, sample, rank=4), fit(loaded, sample, rank=4)
    for a, b in zip(first.basis.layers, second.basis.layers, strict=True):
        assert torch.equal(a.p_in, b.p_in)
        assert torch.equal(a.p_out, b.p_out)
        assert torch.equal(a.eigenvalues, b.eigenvalues)
    assert first.entry == second.entry


def test_the_covariances_are_fitted_on_so_many_tokens(loaded, sample, fit):
    fitted = fit(loaded, sample, rank=4, fit_tokens=50)
    chosen = within_tokens(sample, 50)
    total = sum(len(p.tokens) for p in chosen)
    assert 50 <= total < 50 + len(chosen[-1].tokens)
    assert chosen == sample[: len(chosen)]
    assert fitted.entry.covariance_passages == len(chosen)
    assert fitted.entry.covariance_tokens == total
    assert len(within_tokens(sample, 1)) == 1


def test_unknown_layers_are_refused(loaded, sample, fit):
    with pytest.raises(UnknownLayers, match=r"no\.such"):
        fit(loaded, sample, layers=("no.such.layer",))


def _spoilt(new_llama, as_loaded, tokenizer, value=float("nan")):
    """A model in which one token gives no finite gradient."""
    model = new_llama(tie_word_embeddings=False)
    model.model.embed_tokens.weight.data[BAD_TOKEN, 5] = value
    return as_loaded(model, tokenizer)


def _with_bad(passage: Passage) -> Passage:
    ids = list(passage.tokens.input_ids)
    ids[2] = BAD_TOKEN
    tokens = type(passage.tokens)(ids, passage.tokens.targets, passage.tokens.offsets)
    return Passage("bad#0", "bad", 0, 0, 1, tokens)


def test_a_passage_that_is_not_finite_is_as_good_as_absent(
    new_llama, as_loaded, tokenizer, sample, fit, caplog
):
    loaded = _spoilt(new_llama, as_loaded, tokenizer)
    bad = [_with_bad(sample[3]), _with_bad(sample[9])]
    mixed = [*sample[:4], bad[0], *sample[4:], bad[1]]
    got, want = fit(loaded, mixed, rank=5), fit(loaded, sample, rank=5)
    assert "bad#0" in caplog.text
    assert got.entry.passages == len(sample)
    for a, b in zip(got.basis.layers, want.basis.layers, strict=True):
        # Other batches, so other roundings; but the same numbers.
        assert_close(a.p_in @ b.p_in.T, torch.eye(5), rtol=0, atol=2e-3)
        assert_close(a.p_out @ b.p_out.T, torch.eye(5), rtol=0, atol=2e-3)
        scale = b.eigenvalues.max().item()
        assert_close(a.eigenvalues, b.eigenvalues, rtol=1e-2, atol=1e-4 * scale)


def test_without_any_finite_gradient_the_fit_stops(new_llama, as_loaded, tokenizer, sample, fit):
    loaded = _spoilt(new_llama, as_loaded, tokenizer)
    with pytest.raises(NumericalError, match="None of the 3 sampled passages"):
        fit(loaded, [_with_bad(p) for p in sample[:3]], rank=5)


def test_a_layer_without_gradient_adds_nothing_and_breaks_nothing(
    new_llama, as_loaded, tokenizer, sample, fit
):
    model = new_llama()
    model.model.layers[1].mlp.down_proj.weight.data.zero_()  # nothing flows back through it
    fitted = fit(as_loaded(model, tokenizer), sample, rank=5)
    dead = next(b for b in fitted.basis.layers if b.name == "model.layers.1.mlp.up_proj")
    assert dead.eigenvalues.count_nonzero() == 0
    assert_close(dead.p_out @ dead.p_out.T, torch.eye(5))
    assert torch.isfinite(fitted.basis.inverse_roots).all()


def _limited(loaded, tokens: int):
    """A model that runs out of memory above so many tokens, as PyTorch says it."""
    refused = []

    def check(module, args, kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        if ids.numel() > tokens:
            refused.append(ids.shape)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    loaded.model.base_model.register_forward_pre_hook(check, with_kwargs=True)
    return refused


def test_a_batch_that_does_not_fit_is_halved_and_leaves_no_trace(loaded, sample, fit):
    want = fit(loaded, sample, rank=5, batch_tokens=200)
    refused = _limited(loaded, 60)
    got = fit(loaded, sample, rank=5, batch_tokens=200)
    assert refused
    assert got.entry.covariance_tokens == want.entry.covariance_tokens
    for a, b in zip(got.basis.layers, want.basis.layers, strict=True):
        assert_close(a.p_out @ b.p_out.T, torch.eye(5), rtol=0, atol=2e-3)
        scale = b.eigenvalues.max().item()
        assert_close(a.eigenvalues, b.eigenvalues, rtol=1e-2, atol=1e-4 * scale)


def test_out_of_memory_in_the_backward_pass_is_not_counted_twice(loaded, sample, fit):
    """The forward pass has then already seen all inputs of the batch."""
    want = fit(loaded, sample, rank=200)
    failures = iter([True, True])

    def fail_at_first(module, args, output):
        if output.requires_grad and output.numel() > 30 * output.shape[-1]:
            output.register_hook(_raise_out_of_memory if next(failures, False) else lambda g: None)

    last = loaded.model.get_submodule(_names(loaded)[-1])
    last.register_forward_hook(fail_at_first)
    got = fit(loaded, sample, rank=200)
    assert next(failures, None) is None
    for a, b in zip(got.layers, want.layers, strict=True):
        assert a.share_kept_in == pytest.approx(b.share_kept_in, abs=1e-6)
    for a, b in zip(got.basis.layers, want.basis.layers, strict=True):
        scale = b.eigenvalues.max().item()
        assert_close(a.eigenvalues[:3, :3], b.eigenvalues[:3, :3], rtol=1e-2, atol=1e-3 * scale)


def _raise_out_of_memory(g):
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_passage_that_does_not_fit_alone_is_named(loaded, sample, fit):
    _limited(loaded, 20)
    with pytest.raises(OutOfMemory, match=r"Passage d\d+#0 of 2\d tokens.*--max-length"):
        fit(loaded, sample, rank=5)


@pytest.mark.parametrize("end", ["well", "badly"])
def test_the_spool_is_removed(loaded, sample, fit, tmp_path, end):
    if end == "badly":
        _limited(loaded, 20)
        with pytest.raises(OutOfMemory):
            fit(loaded, sample[:7], rank=5, fit_tokens=10)  # only the second pass sees all
    else:
        fit(loaded, sample, rank=5)
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_cannot_be_written_is_told(loaded, sample, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFull, match="spool"):
        fit_basis(
            loaded,
            sample,
            IndexSettings(rank=4),
            spool=tmp_path / "file" / "spool",
            reporter=Silence(),
        )
