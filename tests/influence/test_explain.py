"""Parts of scores against explicit sums over positions, with dense gradients in float64."""

import copy

import pytest
import torch
from torch.testing import assert_close

from influence.basis import Basis, LayerBasis
from influence.curvature import random_orthonormal
from influence.documents import Document, Message
from influence.encoder import GradientEncoder, input_leaders
from influence.explain import explain_passages, explain_query, split_scores
from influence.layers import select_layers
from influence.measurement import Query, encode_queries
from influence.tokens import TokenSequence, document_passages
from influence.whitening import LowRankWhitening

TEXTS = (
    "The queen of the north was 🐟 Ärna of the river.",
    "Bread and wine",
    "the king of the south had gold, silver and a ship in the east",
)


def make_basis(loaded, *, rank: int = 5, dims: int = 10**9, joint: bool = False) -> Basis:
    """Random projections and eigenvalues of many sizes."""
    layers = select_layers(loaded.model)
    leaders = input_leaders(loaded, layers)
    generator = torch.Generator().manual_seed(5)
    number = {layer.name: i for i, layer in enumerate(layers)}
    basis = Basis(
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
    if not joint:
        return basis
    sample = torch.randn(12, basis.vector_dims, generator=generator)
    whitening = LowRankWhitening.fit(sample, damping=0.5)
    return Basis(basis.layers, basis.damping, basis.dims, basis.seed, whitening)


SETTINGS = {
    "plain": {},
    "sketched": {"dims": 40},
    "joint": {"joint": True},
    "sketched and joint": {"dims": 40, "joint": True},
}


def passages_of(tokenizer, texts=TEXTS) -> list[TokenSequence]:
    return [
        next(document_passages(Document(id="d", plain=text), tokenizer, max_length=64)).tokens
        for text in texts
    ]


def explicit_parts(loaded, basis: Basis, sequence, vector) -> torch.Tensor:
    """``[T, layers]`` float64: every position's outer product, made whole and projected."""
    twin = copy.deepcopy(loaded.model).double().eval().requires_grad_(True)
    seen: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}

    def hook(name):
        def keep(_module, args, output):
            seen[name], outputs[name] = args[0][0], output
            output.retain_grad()

        return keep

    for layer in basis.layers:
        twin.get_submodule(layer.name).register_forward_hook(hook(layer.name))
    log_probs = twin(input_ids=torch.tensor([sequence.input_ids])).logits[0].log_softmax(-1)
    loss = -sum(
        log_probs[t - 1, token] for t, token in enumerate(sequence.input_ids) if sequence.targets[t]
    )
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    back = basis.back(vector[None])[0].double()
    parts = []
    start = 0
    for layer in basis.layers:
        against = back[start : start + layer.coordinates].view(len(layer.p_out), len(layer.p_in))
        start += layer.coordinates
        # Q̂ in the layer's own widths, [d_out, d_in], against each position's weight gradient.
        wide = layer.p_out.double().T @ against @ layer.p_in.double()
        gradient = outputs[layer.name].grad
        assert gradient is not None
        per_position = torch.einsum("to,ti->toi", gradient[0], seen[layer.name].detach())
        parts.append((per_position * wide).sum((1, 2)))
    return torch.stack(parts, dim=1)


@pytest.fixture(params=SETTINGS)
def encoder(request, loaded) -> GradientEncoder:
    return GradientEncoder(loaded, make_basis(loaded, **SETTINGS[request.param]))


def test_parts_are_those_of_every_position_by_itself(encoder, loaded, tokenizer):
    sequences = passages_of(tokenizer)
    vectors = encoder.encode(passages_of(tokenizer, ["what is in the east", "gold"])).vectors
    got = split_scores(encoder, sequences, vectors)
    assert got.positions.shape == (2, 3, max(map(len, sequences)))
    for r in range(2):
        for b, sequence in enumerate(sequences):
            want = explicit_parts(loaded, encoder.basis, sequence, vectors[r])
            scale = want.norm()
            length = len(sequence)
            assert (got.positions[r, b, :length].double() - want.sum(1)).norm() < 1e-5 * scale
            assert (got.layers[r, b].double() - want.sum(0)).norm() < 1e-5 * scale
            assert not got.positions[r, b, length:].any()


def test_parts_add_up_to_the_score(encoder, tokenizer):
    sequences = passages_of(tokenizer)
    query = Query.of("Who was it?", "the queen of the north", tokenizer, max_length=64)
    (encoded,) = encode_queries(encoder, [query])
    vectors = encoder.encode(sequences).vectors
    scores = vectors @ encoded.vector
    scale = float(vectors.norm(dim=1).max() * encoded.vector.norm())
    by_passage = explain_passages(encoder, sequences, encoded.vector)
    by_query = explain_query(encoder, query, encoded, vectors)
    for score, passage, (response,) in zip(scores.tolist(), by_passage, by_query, strict=True):
        for explanation in (passage, response):
            assert explanation.influence == pytest.approx(score, abs=1e-5 * scale)
            assert sum(explanation.layers) == pytest.approx(score, abs=1e-5 * scale)


@pytest.mark.parametrize("measurement", ["margin", "log_prob", "contrast"])
def test_parts_of_a_query_add_up_for_every_measurement(loaded, tokenizer, measurement):
    encoder = GradientEncoder(loaded, make_basis(loaded, dims=40))
    query = Query.of(
        "Who was it?",
        "the queen",
        tokenizer,
        max_length=64,
        measurement=measurement,
        alternative="the king of gold" if measurement == "contrast" else None,
    )
    (encoded,) = encode_queries(encoder, [query])
    vectors = encoder.encode(passages_of(tokenizer)).vectors
    scores = vectors @ encoded.vector
    scale = float(vectors.norm(dim=1).max() * encoded.vector.norm())
    explained = explain_query(encoder, query, encoded, vectors)
    for score, explanations in zip(scores.tolist(), explained, strict=True):
        assert len(explanations) == len(query.sequences)
        total = sum(e.influence for e in explanations)
        assert total == pytest.approx(score, abs=1e-5 * scale)
        assert sum(sum(e.layers) for e in explanations) == pytest.approx(score, abs=1e-5 * scale)


def test_parts_do_not_depend_on_the_batch(loaded, tokenizer):
    encoder = GradientEncoder(loaded, make_basis(loaded, dims=40))
    sequences = passages_of(tokenizer) * 2
    vector = encoder.encode(sequences[:1]).vectors[0]
    together = explain_passages(encoder, sequences, vector)
    one_by_one = explain_passages(encoder, sequences, vector, tokens_per_batch=1)
    for a, b in zip(together, one_by_one, strict=True):
        assert [(p.start, p.end) for p in a.tokens] == [(p.start, p.end) for p in b.tokens]
        scale = sum(abs(p.influence) for p in a.tokens)
        for p, q in zip(a.tokens, b.tokens, strict=True):
            assert p.influence == pytest.approx(q.influence, abs=1e-5 * scale)


def test_one_pass_over_the_passages_explains_them_all(loaded, tokenizer):
    encoder = GradientEncoder(loaded, make_basis(loaded))
    sequences = passages_of(tokenizer)
    vector = encoder.encode(sequences[:1]).vectors[0]
    passes = []
    handle = encoder.loss.trunk.register_forward_hook(lambda *_: passes.append(1))
    explain_passages(encoder, sequences, vector)
    handle.remove()
    assert len(passes) == 1


def test_every_part_stands_at_the_token_that_is_predicted(loaded, tokenizer):
    encoder = GradientEncoder(loaded, make_basis(loaded))
    (sequence,) = passages_of(tokenizer, TEXTS[2:])
    vector = encoder.encode([sequence]).vectors[0]
    parts = split_scores(encoder, [sequence], vector[None]).positions[0, 0]
    assert parts[-1] == 0  # nothing is predicted there
    (explanation,) = explain_passages(encoder, [sequence], vector)
    where = {(p.start, p.end): p.influence for p in explanation.tokens}
    for t, span in enumerate(sequence.offsets[1:], start=1):
        assert where[span] == pytest.approx(float(parts[t - 1]), rel=1e-6)
    assert sequence.offsets[0] not in where  # the very first token is predicted by nothing


def test_bytes_of_one_character_are_one_token(loaded, tokenizer):
    encoder = GradientEncoder(loaded, make_basis(loaded))
    (sequence,) = passages_of(tokenizer, TEXTS[:1])
    fish = TEXTS[0].index("🐟")
    several = [t for t, (start, end) in enumerate(sequence.offsets) if start <= fish < end]
    assert len(several) > 1
    vector = encoder.encode([sequence]).vectors[0]
    parts = split_scores(encoder, [sequence], vector[None]).positions[0, 0]
    (explanation,) = explain_passages(encoder, [sequence], vector)
    (part,) = [p for p in explanation.tokens if p.start <= fish < p.end]
    assert part.influence == pytest.approx(float(parts[[t - 1 for t in several]].sum()), rel=1e-5)
    for before, after in zip(explanation.tokens, explanation.tokens[1:], strict=False):
        assert before.end <= after.start


def test_tokens_of_a_template_are_elsewhere(loaded, chat_tokenizer):
    loaded = copy.copy(loaded)
    object.__setattr__(loaded, "tokenizer", chat_tokenizer)
    encoder = GradientEncoder(loaded, make_basis(loaded))
    chat = Document(id="d", messages=(Message("user", "who ?"), Message("assistant", "the king")))
    sequence = next(document_passages(chat, chat_tokenizer, max_length=64)).tokens
    query = Query.of("who ?", "the queen", chat_tokenizer, max_length=64)
    (encoded,) = encode_queries(encoder, [query])
    (passage,) = explain_passages(encoder, [sequence], encoded.vector)
    assert "".join(chat.text[p.start : p.end] for p in passage.tokens) == "who ?the king"
    assert passage.elsewhere != 0
    vectors = encoder.encode([sequence]).vectors
    ((response,),) = explain_query(encoder, query, encoded, vectors)
    assert "".join("the queen"[p.start : p.end] for p in response.tokens) == "the queen"
    assert response.influence == pytest.approx(passage.influence, rel=1e-3)


def test_a_layer_called_twice_and_inputs_shared_by_layers_add_up(tokenizer, as_loaded, new_llama):
    model = new_llama()
    # The second block is the first once more: each of its layers is called twice.
    model.model.layers[1] = model.model.layers[0]
    model.model.layers[1].self_attn.layer_idx = 0
    loaded = as_loaded(model, tokenizer)
    basis = make_basis(loaded, dims=30)
    assert len(basis.layers) == 7
    assert len(set(basis.leaders.values())) == 4
    encoder = GradientEncoder(loaded, basis)
    sequences = passages_of(tokenizer)
    vectors = encoder.encode(sequences).vectors
    parts = split_scores(encoder, sequences, vectors)
    scores = vectors @ vectors.T
    assert_close(parts.positions.sum(-1), scores, rtol=1e-4, atol=1e-5 * scores.max().item())
    assert_close(parts.layers.sum(-1), scores, rtol=1e-4, atol=1e-5 * scores.max().item())


def test_layers_by_themselves_are_the_influence_of_training_them_alone(loaded, tokenizer):
    """Where nothing is sketched and nothing couples the layers."""
    basis = make_basis(loaded)
    encoder = GradientEncoder(loaded, basis)
    sequences = passages_of(tokenizer)
    vectors = encoder.encode(sequences).vectors
    parts = split_scores(encoder, sequences[1:], vectors[:1]).layers[0]  # [B, layers]
    for number, layer in enumerate(basis.layers):
        own = LayerBasis(layer.name, layer.name, layer.p_in, layer.p_out, layer.eigenvalues)
        alone = GradientEncoder(loaded, Basis((own,), basis.damping, basis.dims, basis.seed))
        mine = alone.encode(sequences).vectors
        want = mine[1:] @ mine[0]
        assert_close(parts[:, number], want, rtol=1e-4, atol=1e-6 * scores_scale(vectors))


def scores_scale(vectors) -> float:
    return float(vectors.norm(dim=1).max() ** 2)


def test_the_sketch_leaves_a_layers_part_right_on_average(loaded, tokenizer):
    exact_basis = make_basis(loaded)
    sequences = passages_of(tokenizer)[:2]
    exact = GradientEncoder(loaded, exact_basis)
    coordinates, _ = exact.coordinates(sequences)
    wide = coordinates * exact_basis.inverse_roots
    want = split_scores(exact, sequences[1:], exact.encode(sequences[:1]).vectors).layers[0, 0]
    seeds, dims = 400, 60
    found = torch.zeros(seeds, len(exact_basis.layers))
    ends = torch.tensor([layer.coordinates for layer in exact_basis.layers]).cumsum(0)
    for seed in range(seeds):
        basis = Basis(exact_basis.layers, exact_basis.damping, dims, seed)
        against = basis.back(basis.whitened(coordinates[:1]))
        found[seed] = (against * coordinates[1]).cumsum(1)[0, ends - 1].diff(prepend=torch.zeros(1))
    norms = torch.stack([part.norm() for part in wide[1].tensor_split(ends[:-1])])
    noise = wide[0].norm() * norms / dims**0.5
    # Means of 400 draws lie within four of their standard errors; spreads are as promised.
    assert ((found.mean(0) - want).abs() < 4 * noise / seeds**0.5).all()
    assert_close(found.std(0), noise, rtol=0.25, atol=0.0)
