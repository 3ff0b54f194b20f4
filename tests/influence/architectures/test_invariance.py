"""What must not change a vector: how the batch is padded, and how the model is computed."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from influence.encoder import GradientEncoder

MODELS = ["llama", "gpt2", "gemma2", "mistral", "pythia", "opt", "phi", "falcon"]
# Another way to compute the same in float32: only the order of its sums may differ.
ROUNDING = 1e-5


@pytest.fixture(params=MODELS)
def model(request, new_causal):
    return new_causal(request.param)


@pytest.fixture
def vectors(new_basis, new_sequences):
    """Vectors of padded sequences under random projections, ``[B, D]``."""

    def encode(task, sequences=None) -> torch.Tensor:
        sequences = sequences or new_sequences((7, 12, 4, 9))
        return GradientEncoder(task, new_basis(task, sequences[0])).encode(sequences).vectors

    return encode


def assert_same(got: torch.Tensor, want: torch.Tensor) -> None:
    assert want.norm(dim=1).min() > 1e-3  # or nothing would be proved
    assert ((got - want).norm(dim=1) <= ROUNDING * want.norm(dim=1)).all()


def test_padding_on_the_left_or_on_the_right(model, as_task, vectors):
    assert_same(vectors(as_task(model, padding="left")), vectors(as_task(model)))


def test_order_and_size_of_the_batch(model, as_task, vectors, new_sequences):
    task = as_task(model)
    sequences = new_sequences((7, 12, 4, 9))
    want = vectors(task, sequences)
    order = [2, 0, 3, 1]
    assert_same(vectors(task, [sequences[i] for i in order]), want[order])
    assert_same(torch.cat([vectors(task, [s]) for s in sequences]), want)


# Gemma 2 caps its attention scores, which only eager attention can; transformers allows no other.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "gemma2"])
def test_eager_attention_and_sdpa(name, new_causal, as_task, vectors):
    found = []
    for attention in ("eager", "sdpa"):
        model = new_causal(name, attn_implementation=attention)
        assert model.config._attn_implementation == attention
        # On the left, where there is a mask to be minded.
        found.append(vectors(as_task(model, padding="left")))
    assert_same(*found)


def test_gradient_checkpointing_left_on_by_the_training(model, as_task, vectors):
    want = vectors(as_task(model))
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    assert_same(vectors(as_task(model)), want)
    assert model.training
    layers = [m for m in model.modules() if hasattr(m, "gradient_checkpointing")]
    assert layers
    assert all(layer.gradient_checkpointing for layer in layers)


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_compiled_model(how, new_causal, as_task, vectors):
    model = new_causal("llama")
    want = vectors(as_task(model))
    if how == "wrapped":
        assert_same(vectors(as_task(torch.compile(model, backend="eager"))), want)
    else:
        model.compile(backend="eager")
        assert_same(vectors(as_task(model)), want)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_any_number_of_threads(name, new_causal, as_task, vectors):
    model = new_causal(name)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(vectors(as_task(model)))
    finally:
        torch.set_num_threads(before)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])


@pytest.mark.parametrize("name", ["llama", "gpt2", "pythia", "phi"])
def test_bfloat16_ranks_as_float32_does(name, new_causal, as_task, vectors, new_sequences):
    """Rank correlation of the relative influences of 40 passages, over 12 queries."""
    settings = {"initializer_range": 0.1}  # at .3, as elsewhere, logits saturate in 8 bits
    passages, queries = new_sequences([12] * 40, seed=1), new_sequences([10] * 12, seed=2)
    found = []
    for dtype in ("float32", "bfloat16"):
        task = as_task(new_causal(name, **settings), dtype=dtype)
        rows, asked = (torch.nn.functional.normalize(vectors(task, s)) for s in (passages, queries))
        found.append((asked @ rows.T).numpy())
    ranks = [float(spearmanr(*pair).statistic) for pair in zip(*found, strict=True)]
    print(f"{name}: mean {np.mean(ranks):.4f}, lowest {min(ranks):.4f}")
    # A cosine is off by about e ~ 2^-8 a product times a dozen products in turn, .03 of the spread
    # of a query's scores; Spearman's correlation then loses about (6/π) e² < .002 on average.
    assert np.mean(ranks) > 0.99
