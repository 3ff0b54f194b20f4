"""Vectors of the encoder against explicit gradients: one plain backward pass per passage."""

import pytest
import torch
from torch.testing import assert_close

from influence.basis import Basis, LayerBasis
from influence.curvature import random_orthonormal
from influence.encoder import Batch, GradientEncoder, LanguageModelLoss, input_leaders
from influence.errors import NumericalError
from influence.layers import select_layers
from influence.tokens import TokenSequence
from influence.whitening import LowRankWhitening

LENGTHS = (3, 17, 2, 30, 9, 17)


def _basis(loaded, *, rank: int = 6, dims: int = 10**6, patterns=("*",)) -> Basis:
    """Random orthonormal projections and random eigenvalues of many sizes."""
    layers = select_layers(loaded.model, patterns)
    leaders = input_leaders(loaded, layers)
    generator = torch.Generator().manual_seed(5)
    number = {layer.name: i for i, layer in enumerate(layers)}
    return Basis(
        tuple(
            LayerBasis(
                layer.name,
                leaders[layer.name],
                random_orthonormal(rank, layer.d_in, seed=number[leaders[layer.name]]).float(),
                random_orthonormal(rank, layer.d_out, seed=100 + number[layer.name]).float(),
                torch.rand(rank, rank, generator=generator, dtype=torch.float64) ** 4,
            )
            for layer in layers
        ),
        damping=0.1,
        dims=dims,
        seed=7,
    )


def _projected(basis: Basis, gradients) -> torch.Tensor:
    """``P_out dW P_inᵀ`` of explicit gradients, ``[K]`` float64."""
    return torch.cat(
        [
            (layer.p_out.double() @ gradients[layer.name] @ layer.p_in.double().T).flatten()
            for layer in basis.layers
        ]
    )


@pytest.fixture
def sequences(token_sequence) -> list[TokenSequence]:
    """Several lengths; one with a prompt that carries no loss, one with targets here and there."""
    found = [token_sequence(length, seed=i) for i, length in enumerate(LENGTHS)]
    found[1] = token_sequence(17, seed=1, first_target=11)
    found[4] = TokenSequence(
        found[4].input_ids, [t in (2, 3, 7) for t in range(9)], found[4].offsets
    )
    return found


def test_coordinates_are_the_projection_of_the_explicit_gradient(
    loaded, sequences, explicit_gradients
):
    basis = _basis(loaded)
    got, losses = GradientEncoder(loaded, basis).coordinates(sequences)
    names = [layer.name for layer in basis.layers]
    for row, sequence in enumerate(sequences):
        want = _projected(basis, explicit_gradients(loaded.model, names, sequence))
        error = (got[row].double() - want).norm() / want.norm()
        assert error < 1e-5, f"sequence {row}: {error:.1e}"
    assert got.dtype == torch.float32
    assert losses.shape == (len(sequences),)


def test_every_layer_by_itself_is_right(loaded, sequences, explicit_gradients):
    basis = _basis(loaded)
    got, _ = GradientEncoder(loaded, basis).coordinates(sequences[3:4])
    gradients = explicit_gradients(
        loaded.model, [layer.name for layer in basis.layers], sequences[3]
    )
    start = 0
    for layer in basis.layers:
        want = layer.p_out.double() @ gradients[layer.name] @ layer.p_in.double().T
        part = got[0, start : start + layer.coordinates].view_as(want)
        start += layer.coordinates
        assert (part - want).norm() < 1e-5 * want.norm(), layer.name


def test_the_explicit_gradient_is_not_zero_anywhere(loaded, sequences, explicit_gradients):
    """Or the tests above would prove nothing."""
    names = [layer.name for layer in select_layers(loaded.model)]
    for gradient in explicit_gradients(loaded.model, names, sequences[3]).values():
        assert gradient.norm() > 1e-3


def test_a_passage_has_the_same_vector_whatever_batch_it_travels_in(loaded, sequences):
    encoder = GradientEncoder(loaded, _basis(loaded))
    together = encoder.encode(sequences)
    backwards = encoder.encode(sequences[::-1])
    pair = encoder.encode([sequences[0], sequences[3]])
    for row, sequence in enumerate(sequences):
        alone = encoder.encode([sequence])
        scale = 1e-5 * alone.vectors.norm().item()  # only the order of float32 sums may differ
        assert (alone.vectors[0] - together.vectors[row]).norm() < scale
        assert (alone.vectors[0] - backwards.vectors[-1 - row]).norm() < scale
        assert_close(alone.losses[0], together.losses[row])
    assert (pair.vectors[0] - together.vectors[0]).norm() < 1e-5 * pair.vectors[0].norm()


def test_the_same_batch_has_the_same_bits_a_hundred_times(loaded, sequences):
    encoder = GradientEncoder(loaded, _basis(loaded, rank=3, dims=50))
    first = encoder.encode(sequences[:2]).vectors
    for _ in range(100):
        assert torch.equal(encoder.encode(sequences[:2]).vectors, first)


def test_losses_are_summed_over_the_targets(loaded, sequences):
    encoded = GradientEncoder(loaded, _basis(loaded, rank=2)).encode(sequences)
    for row, sequence in enumerate(sequences):
        ids = torch.tensor([sequence.input_ids])
        with torch.no_grad():
            log_probs = loaded.model(input_ids=ids).logits[0].double().log_softmax(-1)
        want = -sum(
            log_probs[t - 1, i] for t, i in enumerate(sequence.input_ids) if sequence.targets[t]
        )
        assert_close(encoded.losses[row].double(), want, rtol=1e-5, atol=1e-5)
    assert encoded.target_tokens.tolist() == [sum(s.targets) for s in sequences]


def test_vectors_are_whitened_sketched_and_whitened_again(loaded, sequences):
    bare = _basis(loaded, dims=64)
    sample = torch.randn(20, 64, generator=torch.Generator().manual_seed(3))
    joint = LowRankWhitening.fit(sample, damping=1.0)
    basis = Basis(bare.layers, bare.damping, bare.dims, bare.seed, joint)
    encoder = GradientEncoder(loaded, basis)
    coordinates, _ = encoder.coordinates(sequences)
    want = joint.forward(basis.sketch.forward(coordinates * basis.inverse_roots))
    assert_close(encoder.encode(sequences).vectors, want, rtol=1e-4, atol=1e-5)
    assert encoder.encode(sequences).vectors.shape == (len(sequences), 64)


def test_encoding_leaves_the_model_as_it_was(loaded, sequences):
    model = loaded.model
    model.train()
    model.requires_grad_(True)
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    encoder = GradientEncoder(loaded, _basis(loaded, rank=2))
    encoder.encode(sequences)
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_an_attention_that_is_read_by_three_layers_is_projected_once(loaded, sequences):
    encoder = GradientEncoder(loaded, _basis(loaded, rank=2))
    leaders = encoder.basis.leaders
    if loaded.model.config.model_type == "llama":
        prefix = "model.layers.1"
        assert leaders[f"{prefix}.self_attn.v_proj"] == f"{prefix}.self_attn.q_proj"
        assert leaders[f"{prefix}.mlp.up_proj"] == f"{prefix}.mlp.gate_proj"
        assert leaders[f"{prefix}.mlp.down_proj"] == f"{prefix}.mlp.down_proj"
    else:  # GPT-2 has query, key and value in one matrix: nothing to share
        assert all(name == leader for name, leader in leaders.items())


def test_bfloat16_products_point_the_same_way(tokenizer, as_loaded, new_llama, sequences):
    exact = as_loaded(new_llama(initializer_range=0.08), tokenizer)
    half = as_loaded(new_llama(initializer_range=0.08), tokenizer, dtype="bfloat16")
    vectors = [GradientEncoder(m, _basis(m)).encode(sequences).vectors for m in (exact, half)]
    cosines = torch.cosine_similarity(*vectors)
    # 8 bits of mantissa are 0.4 % a product; a dozen layers deep that is a few percent.
    assert cosines.min() > 0.98


@pytest.mark.parametrize("rows", [[[5, 6, 7]], [[5], [6, 7, 8]]])
def test_a_batch_lists_each_target_with_the_token_before_it(rows):
    sequences = [
        TokenSequence(ids, [t > 0 for t in range(len(ids))], [(-1, -1)] * len(ids)) for ids in rows
    ]
    batch = Batch.of(sequences, torch.device("cpu"))
    pairs = list(zip(batch.rows.tolist(), batch.columns.tolist(), strict=True))
    assert pairs == [(r, t - 1) for r, ids in enumerate(rows) for t in range(1, len(ids))]
    assert batch.targets.tolist() == [i for ids in rows for i in ids[1:]]
    assert batch.real_tokens.sum(1).tolist() == [len(ids) for ids in rows]


def _scaled(kind: str):
    """Tiny models that do something between their last hidden state and their logits."""
    import transformers as t

    common = {
        "vocab_size": 400,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    if kind == "granite":
        return t.GraniteForCausalLM(t.GraniteConfig(**common, logits_scaling=4.0))
    if kind == "cohere":
        return t.CohereForCausalLM(t.CohereConfig(**common, logit_scale=0.25))
    return t.Gemma2ForCausalLM(
        t.Gemma2Config(**common, head_dim=8, final_logit_softcapping=2.0, query_pre_attn_scalar=8)
    )


@pytest.mark.parametrize("kind", ["granite", "cohere", "gemma2"])
def test_a_scale_or_a_cap_on_the_logits_is_part_of_the_gradient(
    kind, tokenizer, as_loaded, sequences, explicit_gradients
):
    loaded = as_loaded(_scaled(kind), tokenizer)
    basis = _basis(loaded, rank=3)
    got, _ = GradientEncoder(loaded, basis).coordinates(sequences)
    want = _projected(
        basis,
        explicit_gradients(loaded.model, [layer.name for layer in basis.layers], sequences[3]),
    )
    assert (got[3].double() - want).norm() < 1e-5 * want.norm()


def test_a_model_with_an_unknown_step_before_its_logits_gives_them_whole(
    tokenizer, as_loaded, new_llama, sequences, explicit_gradients, caplog
):
    model = new_llama()
    head = model.lm_head

    class Sharpened(type(head)):
        def forward(self, x):
            return 2 * super().forward(x)

    head.__class__ = Sharpened
    loaded = as_loaded(model, tokenizer)
    basis = _basis(loaded, rank=3)
    got, _ = GradientEncoder(loaded, basis).coordinates(sequences)
    names = [layer.name for layer in basis.layers]
    want = _projected(basis, explicit_gradients(model, names, sequences[1]))
    assert (got[1].double() - want).norm() < 1e-5 * want.norm()
    assert "whole logits" in caplog.text


def test_a_model_whose_weights_are_not_finite_is_refused_for_that(tokenizer, as_loaded, new_llama):
    model = new_llama()
    model.model.layers[0].mlp.up_proj.weight.data[3, 3] = float("nan")
    with pytest.raises(NumericalError, match="weights are finite"):
        LanguageModelLoss(as_loaded(model, tokenizer))
