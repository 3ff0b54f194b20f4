"""Measurements against autograd of their formulas through whole logits, in float64."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close
from transformers.pytorch_utils import Conv1D

from influence.basis import Basis, LayerBasis
from influence.curvature import random_orthonormal
from influence.encoder import GradientEncoder, input_leaders
from influence.errors import InvalidInput, QueryTooLong
from influence.layers import select_layers
from influence.measurement import MEASUREMENTS, Query, encode_queries

PROMPT = "Who was the queen of the north?"
RESPONSE = "The queen of the north was 🐟 Ärna of the river."
ALTERNATIVE = "The queen of the south was silver."
SPAN = (RESPONSE.index("🐟"), RESPONSE.index(" of the river"))
REPLACED = RESPONSE[: SPAN[0]] + "gold and bread" + RESPONSE[SPAN[1] :]

FORMULAS = {
    "loss": lambda p: -p[0].log(),
    "log_prob": lambda p: p[0].log(),
    "margin": lambda p: p[0].log() - (1 - p[0]).log(),
    "contrast": lambda p: p[0].log() - p[1].log(),
}


def full_rank_basis(loaded, *, rank: int = 10**6) -> Basis:
    """Square orthonormal projections and equal eigenvalues: scores are inner products / 2."""
    layers = select_layers(loaded.model)
    leaders = input_leaders(loaded, layers)
    number = {layer.name: i for i, layer in enumerate(layers)}
    return Basis(
        tuple(
            LayerBasis(
                layer.name,
                leaders[layer.name],
                random_orthonormal(
                    min(rank, layer.d_in), layer.d_in, seed=number[leaders[layer.name]]
                ).float(),
                random_orthonormal(
                    min(rank, layer.d_out), layer.d_out, seed=100 + number[layer.name]
                ).float(),
                torch.ones(min(rank, layer.d_out), min(rank, layer.d_in), dtype=torch.float64),
            )
            for layer in layers
        ),
        damping=1.0,
        dims=10**9,
        seed=0,
    )


def response_probability(model, sequence) -> torch.Tensor:
    """``p`` of the targets together: a product over softmaxes of whole logits."""
    probabilities = model(input_ids=torch.tensor([sequence.input_ids])).logits[0].softmax(-1)
    picked = [
        probabilities[t - 1, token]
        for t, token in enumerate(sequence.input_ids)
        if sequence.targets[t]
    ]
    return torch.stack(picked).prod()


def explicit(loaded, query, names) -> tuple[float, dict[str, torch.Tensor]]:
    """``f`` and its gradient in every weight, ``[d_out, d_in]``, by plain autograd in float64."""
    twin = copy.deepcopy(loaded.model).double().eval().requires_grad_(True)
    f = FORMULAS[query.measurement.name]([response_probability(twin, s) for s in query.sequences])
    modules = [twin.get_submodule(name) for name in names]
    gradients = torch.autograd.grad(f, [module.weight for module in modules])
    return f.item(), {
        name: gradient.T if isinstance(module, Conv1D) else gradient
        for name, module, gradient in zip(names, modules, gradients, strict=True)
    }


def ask(tokenizer, measurement: str, *, span=None, response=RESPONSE, **given) -> Query:
    alternative = None
    if measurement == "contrast":
        alternative = ALTERNATIVE if span is None else REPLACED
    return Query.of(
        PROMPT,
        response,
        tokenizer,
        max_length=256,
        measurement=measurement,
        span=span,
        **{"alternative": alternative, **given},
    )


@pytest.mark.parametrize("span", [None, SPAN], ids=["response", "span"])
@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_a_query_holds_the_gradient_of_the_formula(loaded, tokenizer, measurement, span):
    query = ask(tokenizer, measurement, span=span)
    basis = full_rank_basis(loaded, rank=8)
    (got,) = encode_queries(GradientEncoder(loaded, basis), [query])
    value, gradients = explicit(loaded, query, [layer.name for layer in basis.layers])
    sign = 1 if measurement == "loss" else -1  # positive scores: f got better
    want = sign * torch.cat(
        [
            (layer.p_out.double() @ gradients[layer.name] @ layer.p_in.double().T).flatten()
            for layer in basis.layers
        ]
    )
    assert got.value == pytest.approx(value, rel=1e-5)
    error = (got.vector.double() * math.sqrt(2) - want).norm() / want.norm()
    assert error < 1e-5


@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_a_positive_score_means_that_training_on_the_passage_made_it_better(
    loaded, tokenizer, token_sequence, explicit_gradients, measurement
):
    """One small step of gradient descent on a passage, carried out."""
    query = ask(tokenizer, measurement)
    basis = full_rank_basis(loaded)
    encoder = GradientEncoder(loaded, basis)
    names = [layer.name for layer in basis.layers]
    (encoded,) = encode_queries(encoder, [query])
    for seed in range(4):
        passage = token_sequence(12, seed=seed)
        gradients = explicit_gradients(loaded.model, names, passage)

        def trained(step: float, gradients=gradients) -> float:
            model = copy.deepcopy(loaded.model).double().eval()
            for name, gradient in gradients.items():
                module = model.get_submodule(name)
                move = gradient.T if isinstance(module, Conv1D) else gradient
                module.weight.data -= step * move
            with torch.no_grad():
                return FORMULAS[measurement](
                    [response_probability(model, s) for s in query.sequences]
                ).item()

        # A central difference: its error is the square of the step. Llama's norms run in float32,
        # so f is known to 1e-6 or so, and the step cannot be any smaller.
        step = 2e-5
        rise = (trained(step) - trained(-step)) / (2 * step)
        better = -rise if measurement == "loss" else rise
        score = 2 * float(encoder.encode([passage]).vectors[0] @ encoded.vector)
        assert score == pytest.approx(better, rel=2e-2, abs=0.2)


def test_loss_log_prob_and_margin_point_the_same_way(loaded, tokenizer):
    encoder = GradientEncoder(loaded, full_rank_basis(loaded, rank=3))
    one = {"response": "the", "span": None}  # one token: p is far from 0
    loss, log_prob, margin = encode_queries(
        encoder, [ask(tokenizer, name, **one) for name in ("loss", "log_prob", "margin")]
    )
    assert_close(loss.vector, log_prob.vector)
    assert loss.value == -log_prob.value
    p = math.exp(log_prob.value)
    assert_close(margin.vector, loss.vector / (1 - p))
    assert margin.value == pytest.approx(math.log(p / (1 - p)))


@pytest.mark.parametrize("loss", [0.0, -1e-7, 1e-9, 1e-4, 0.7, 50.0, 800.0, 1e5])
def test_a_margin_is_finite_however_certain_the_model_is(loss):
    margin = MEASUREMENTS["margin"]
    losses = torch.tensor([loss], dtype=torch.float64)
    value, weight = margin.value(losses).item(), margin.weights(losses).item()
    assert math.isfinite(value)
    assert math.isfinite(weight)
    # 1 - p = 1 - exp(-L), and float32 knows no p between 1 - 1.2e-7 and 1
    rest = -math.expm1(-max(loss, 2**-23))
    assert value == pytest.approx(-max(loss, 2**-23) - math.log(rest), rel=1e-12)
    assert weight == pytest.approx(1 / rest, rel=1e-12)


def test_queries_of_several_measurements_travel_together(loaded, tokenizer):
    encoder = GradientEncoder(loaded, full_rank_basis(loaded, rank=3))
    queries = [ask(tokenizer, name) for name in ("contrast", "loss", "contrast", "margin")]
    together = encode_queries(encoder, queries)
    for query, got in zip(queries, together, strict=True):
        (alone,) = encode_queries(encoder, [query])
        assert (got.vector - alone.vector).norm() < 1e-5 * alone.vector.norm()
        assert got.value == pytest.approx(alone.value, rel=1e-5)
        assert got.target_tokens.tolist() == [sum(s.targets) for s in query.sequences]


def test_what_response_and_alternative_share_cancels(loaded, tokenizer):
    """The same words before the difference are explained by neither."""
    encoder = GradientEncoder(loaded, full_rank_basis(loaded, rank=4))
    shared = "The queen of the "
    end = {"alternative": shared + "east", "response": shared + "west"}
    whole = ask(tokenizer, "contrast", **end)
    part = ask(tokenizer, "contrast", span=(len(shared), len(shared) + 4), **end)
    whole_vector, part_vector = (e.vector for e in encode_queries(encoder, [whole, part]))
    assert (whole_vector - part_vector).norm() < 1e-4 * part_vector.norm()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"measurement": "perplexity"}, "perplexity.*loss, log_prob, margin, contrast"),
        ({"measurement": "contrast"}, "send an alternative"),
        ({"measurement": "loss", "alternative": "x"}, "no use for an alternative"),
        ({"measurement": "contrast", "alternative": RESPONSE}, "the response itself"),
        ({"measurement": "contrast", "alternative": ""}, "empty"),
        ({"measurement": "contrast", "alternative": "x", "span": (4, 9)}, "outside the span 4 to"),
        (
            {
                "measurement": "contrast",
                "alternative": RESPONSE.replace(" queen", ""),
                "span": (3, 9),
            },
            "nothing in its place",
        ),
        ({"measurement": "margin", "span": (4, 900)}, "4 to 900"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_a_reason(tokenizer, given, message):
    with pytest.raises(InvalidInput, match=message):
        Query.of(PROMPT, RESPONSE, tokenizer, max_length=256, **given)


def test_an_alternative_that_is_too_long_is_refused(tokenizer):
    with pytest.raises(QueryTooLong):
        ask(tokenizer, "contrast", alternative="gold " * 300)
