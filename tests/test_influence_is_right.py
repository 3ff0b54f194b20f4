"""Is the number right? From corpus to score on disk, against dense float64 and against retraining.

Nothing here is approximate but what says so: references are explicit gradients, dense solves, and
models fitted again without one example.
"""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from influence.basis import Basis, LayerBasis, basis_of
from influence.capture import capture
from influence.curvature import CovarianceSketch
from influence.documents import Document
from influence.encoder import GradientEncoder
from influence.layers import LinearLayer
from influence.projection import LayerProjection, ProjectionReceiver
from influence.tokens import document_passages, query_tokens
from influence.whitening import LowRankWhitening
from service.engine import Engine
from service.schemas import AttributeRequest

KINGS = ["king", "queen", "river", "mountain", "city", "ship", "gold", "silver", "bread", "wine"]
PLACES = ["north", "south", "east", "west", "war", "peace", "treaty", "people", "miles", "area"]


def _texts(n: int, words: int, *, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(KINGS + PLACES, k=words)) for _ in range(n)]


def _stored(index) -> np.ndarray:
    """Vectors as the index on disk has them, ``[N, D]`` float64."""
    units = np.concatenate(index.vector_shards()).astype(np.float64)
    return units * index.norms.astype(np.float64)[:, None]


def _assert_equal_scores(got, want, norms, q_norm) -> None:
    """Scores from fp16 unit vectors against exact ones.

    Rounding to fp16 moves a coordinate by 2^-11 of itself at most, or 2^-25 where it is tiny, so a
    score by ``(2^-11 + √D 2^-25) ‖q‖‖z‖`` at most; float32 gradients and λ add 1e-4 of it.
    """
    tolerance = (2**-11 + math.sqrt(10_000) * 2**-25 + 1e-4) * q_norm * norms
    assert (np.abs(got - want) <= tolerance).all(), np.max(np.abs(got - want) / (norms * q_norm))


@pytest.fixture
def small(request, new_llama, new_gpt2, tokenizer, as_loaded):
    """Models small enough for dense curvature."""
    if request.param == "gpt2":
        return as_loaded(new_gpt2(), tokenizer)
    return as_loaded(
        new_llama(num_hidden_layers=1, hidden_size=16, intermediate_size=20), tokenizer
    )


def _explicit(loaded, explicit_gradients, names, documents):
    """Gradients of every passage, and of a query, by plain autograd."""
    passages = [p for d in documents for p in document_passages(d, loaded.tokenizer, max_length=32)]
    query = query_tokens(
        "king of the north", " and queen of the west", loaded.tokenizer, max_length=32
    )
    gradients = [explicit_gradients(loaded.model, names, p.tokens) for p in passages]
    return gradients, explicit_gradients(loaded.model, names, query), query


@pytest.mark.parametrize("small", ["llama", "gpt2"], indirect=True)
def test_with_nothing_sketched_the_score_is_that_of_the_dense_inverse_curvature(
    small, build, explicit_gradients
):
    """``q · (H + λI)⁻¹ · g`` layer by layer, ``H`` as a dense matrix over the layer's weights."""
    damping = 0.1
    records = [{"id": f"d{i}", "text": text} for i, text in enumerate(_texts(24, 9))]
    index = build(
        records, small, rank=128, dims=100_000, damping=damping, joint_damping=math.inf,
        layers=("*0.*mlp*",) if "gpt2" in type(small.model).__name__.lower() else ("*",),
    )  # fmt: skip
    assert not index.manifest.is_sketched
    assert index.manifest.fit.passages == len(index) == 24
    basis = basis_of(index)
    names = [layer.name for layer in basis.layers]
    documents = [index.document(r["id"]) for r in records]
    gradients, of_query, query = _explicit(
        small, explicit_gradients, names, [Document(d.id, plain=d.text) for d in documents]
    )
    want = np.zeros(len(gradients))
    for layer in basis.layers:
        p_in, p_out = layer.p_in.double(), layer.p_out.double()
        assert_close(p_in.T @ p_in, torch.eye(p_in.shape[1]).double(), rtol=0, atol=1e-5)
        projected = torch.stack([p_out @ g[layer.name] @ p_in.T for g in gradients])
        eigenvalues = projected.square().mean(dim=0)  # E[G²] in the Kronecker eigenbasis
        q = torch.kron(p_out, p_in)  # [d_out · d_in]²: rows are eigenvectors of the curvature
        curvature = q.T @ torch.diag(eigenvalues.flatten()) @ q
        damped = curvature + damping * eigenvalues.mean() * torch.eye(len(q)).double()
        rows = torch.stack([g[layer.name].flatten() for g in gradients])
        want += (rows @ torch.linalg.solve(damped, of_query[layer.name].flatten())).numpy()
    encoded = GradientEncoder(small, basis).encode([query]).vectors[0].double().numpy()
    got = _stored(index) @ encoded
    _assert_equal_scores(got, want, index.norms, np.linalg.norm(encoded))
    assert (got > 0).any()
    assert (got < 0).any()


@pytest.mark.parametrize("small", ["llama"], indirect=True)
def test_sketched_and_jointly_whitened_the_score_is_that_of_the_dense_d_by_d_solve(
    small, build, explicit_gradients
):
    """``C`` from explicit gradients, ``(C + μI)⁻¹`` by `solve`."""
    records = [{"id": f"d{i}", "text": text} for i, text in enumerate(_texts(24, 9))]
    index = build(records, small, rank=6, dims=100, damping=0.1, joint_damping=0.5)
    assert index.manifest.is_sketched
    basis = basis_of(index)
    names = [layer.name for layer in basis.layers]
    gradients, of_query, query = _explicit(
        small, explicit_gradients, names, [Document(r["id"], plain=r["text"]) for r in records]
    )

    def sketched(found):
        parts = [
            layer.p_out.double() @ found[layer.name] @ layer.p_in.double().T
            for layer in basis.layers
        ]
        rows = torch.cat([part.flatten() for part in parts])[None]
        return basis.sketch.forward(rows * basis.inverse_roots.double())[0]

    rows = torch.stack([sketched(g) for g in gradients])
    covariance = rows.T @ rows / len(rows)
    mu = 0.5 * float(covariance.trace()) / 24  # mean eigenvalue over the rank of the sample
    damped = covariance + mu * torch.eye(100, dtype=torch.float64)
    want = (rows @ torch.linalg.solve(damped, sketched(of_query))).numpy()
    encoded = GradientEncoder(small, basis).encode([query]).vectors[0].double().numpy()
    got = _stored(index) @ encoded
    _assert_equal_scores(got, want, index.norms, np.linalg.norm(encoded))


# -------------------------------------------------------------------------- exact retraining


class _Softmax(nn.Module):
    """Softmax regression: convex, so that leaving one example out has exactly one answer."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        self.linear.weight.data = weight

    def forward(self, x):
        return self.linear(x)


def _fit(x: torch.Tensor, y: torch.Tensor, start: torch.Tensor, ridge: float) -> torch.Tensor:
    """The minimum of ``Σ -log p(y | x) + ridge/2 ‖W‖²`` by Newton's method, float64."""
    classes, width = start.shape
    w = start.clone()
    onehot = torch.nn.functional.one_hot(y, classes).double()
    for _ in range(50):
        p = (x @ w.T).softmax(dim=1)
        gradient = (p - onehot).T @ x + ridge * w
        outer = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # [n, C, C]
        hessian = torch.einsum("nab,ni,nj->aibj", outer, x, x).reshape(classes * width, -1)
        hessian += ridge * torch.eye(classes * width, dtype=torch.float64)
        step = torch.linalg.solve(hessian, gradient.flatten()).view_as(w)
        w = w - step
        if step.abs().max() < 1e-12:
            return w
    raise AssertionError("Newton's method did not converge")


def _coordinates(model, layer, projection, x, y) -> torch.Tensor:
    """Projected gradients of each example, by capture: ``[n, K]``."""
    receiver = ProjectionReceiver([projection], len(x), torch.device("cpu"))
    with capture(model, [layer], receiver):
        logits = model(x[:, None].float())[:, 0]
        nn.functional.cross_entropy(logits, y, reduction="sum").backward()
    return receiver.coordinates


class _Moments:
    """Feeds the covariances of one layer."""

    def __init__(self, layer: LinearLayer) -> None:
        cpu = torch.device("cpu")
        self.inputs = CovarianceSketch(layer.d_in, layer.d_in, seed=0, device=cpu)
        self.outputs = CovarianceSketch(layer.d_out, layer.d_out, seed=0, device=cpu)

    def on_input(self, layer, x):
        self.inputs.update(x.flatten(0, 1))

    def on_gradient(self, layer, seen, g):
        self.outputs.update(g.flatten(0, 1))


def test_the_score_predicts_leave_one_out_retraining():
    """Sign and unit included: removing one of ``n`` raises the loss by ``score / n``."""
    n, width, classes, ridge = 300, 5, 3, 1e-3
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    x = torch.randn(n + 40, width, generator=generator, dtype=torch.float64)
    y = torch.multinomial((x @ truth.T).softmax(dim=1), 1, generator=generator)[:, 0]
    x, x_query, y, y_query = x[:n], x[n:], y[:n], y[n:]
    theta = _fit(x, y, torch.zeros_like(truth), ridge)

    model = _Softmax(theta.float())
    layer = LinearLayer("linear", width, classes)
    moments = _Moments(layer)
    with capture(model, [layer], moments):
        logits = model(x[:, None].float())[:, 0]
        nn.functional.cross_entropy(logits, y, reduction="sum").backward()
    p_in = moments.inputs.subspace(width, seed=0).basis.float()
    p_out = moments.outputs.subspace(classes, seed=0).basis.float()
    projection = LayerProjection("linear", p_in, p_out)
    # The Fisher with labels drawn from the model, every label with its probability, is the Hessian
    # of a softmax regression; with the labels of the data it would be that up to √(k/n) only.
    weights = (classes * (x @ theta.T).softmax(dim=1)).sqrt().float()
    drawn = torch.cat(
        [
            weights[:, c, None] * _coordinates(model, layer, projection, x, torch.full_like(y, c))
            for c in range(classes)
        ]
    )
    eigenvalues = drawn.double().square().mean(dim=0).view(classes, width)
    bare = Basis(
        (LayerBasis("linear", "linear", p_in, p_out, eigenvalues),), damping=1e-4, dims=64, seed=0
    )
    joint = LowRankWhitening.fit(bare.sketched(drawn), damping=1e-4)
    basis = Basis(bare.layers, bare.damping, bare.dims, bare.seed, joint)
    train = basis.whitened(_coordinates(model, layer, projection, x, y)).double()
    query = basis.whitened(_coordinates(model, layer, projection, x_query, y_query)).double()
    predicted = (query @ train.T / n).numpy()  # [Q, n]

    def losses(w):
        return nn.functional.cross_entropy(x_query @ w.T, y_query, reduction="none")

    before = losses(theta)
    actual = np.empty_like(predicted)
    keep = torch.ones(n, dtype=torch.bool)
    for i in range(n):
        keep[i] = False
        actual[:, i] = (losses(_fit(x[keep], y[keep], theta, ridge)) - before).numpy()
        keep[i] = True

    # Over all pairs, and for every query by itself.
    together = np.corrcoef(predicted.ravel(), actual.ravel())[0, 1]
    each = [np.corrcoef(p, a)[0, 1] for p, a in zip(predicted, actual, strict=True)]
    print(f"correlation {together:.4f}, of the worst query {min(each):.4f}")
    assert together > 0.99
    assert min(each) > 0.98
    # The unit: a first order is off by the leverage of an example, k / n = .05 on average.
    slope = float((predicted * actual).sum() / np.square(predicted).sum())
    print(f"retrained over predicted {slope:.3f}")
    assert 0.9 < slope < 1.2
    # And the sign, wherever the effect is not tiny.
    clear = np.abs(actual) > np.abs(actual).mean()
    assert (np.sign(predicted) == np.sign(actual))[clear].mean() > 0.995


# -------------------------------------------------------------------------------- retrieval


def test_a_training_document_used_as_query_finds_itself(
    new_llama, chat_tokenizer, as_loaded, build
):
    """Through index and engine, for documents that differ in a few words only."""
    loaded = as_loaded(new_llama(), chat_tokenizer)
    records = [
        {"id": f"d{i}", "prompt": f"Who is the {a} of the {b}?", "response": text}
        for i, (text, a, b) in enumerate(
            zip(_texts(100, 6), KINGS * 10, sorted(PLACES * 10), strict=True)
        )
    ]
    index = build(records, loaded, rank=16, dims=1024, max_length=128, batch_tokens=1024)
    engine = Engine(index, loaded, search_memory_bytes=2**30)
    found = stands_out = 0
    for record in records:
        result = engine.attribute(
            AttributeRequest(prompt=record["prompt"], response=record["response"], top_k=3),
            request_id="",
        )
        first = result.proponents[0]
        found += first.document_id == record["id"]
        stands_out += result.query.stands_out
        assert first.relative_influence > 0
    engine.close()
    assert found >= 95
    assert stands_out >= 95
