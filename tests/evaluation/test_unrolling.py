"""Exact unrolled differentiation against training again, and SOURCE against it."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from evaluation.unrolling import AdamDescent, Descent, Step, run, unrolled_scores
from influence.unrolled import segment_weights

N, K = 8, 3


def _quadratic(seed: int = 0):
    """Losses ``½ θᵀHθ - b_iᵀθ``: one curvature, a gradient of its own for each example."""
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(N, K, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([1.0, 0.25, 0.0], dtype=torch.float64)
    b[:, 2] -= b[:, 2].mean()  # where there is no curvature there must be no slope

    def loss(theta, examples, weights):
        own = 0.5 * (sigma * theta).dot(theta) - b[examples] @ theta
        return (weights * own).mean()

    return b, sigma, loss


def _steps(count: int, rate: float, *, batch: int, seed: int = 0) -> list[Step]:
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(N, generator=generator).split(batch) for _ in itertools.count())
    flat = itertools.chain.from_iterable(orders)
    return [Step(next(flat), rate) for _ in range(count)]


@pytest.mark.parametrize("make", [
    lambda loss: Descent(loss, momentum=0.9, weight_decay=0.01),
    lambda loss: AdamDescent(loss, (0.9, 0.98), weight_decay=0.01),
], ids=["sgd", "adam"])  # fmt: skip
def test_it_is_the_derivative_of_training_again_with_another_weight(make):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, K, generator=generator, dtype=torch.float64)
    y = torch.randn(N, generator=generator, dtype=torch.float64)
    weights = torch.ones(N, dtype=torch.float64)

    def loss(theta, examples, w):
        return (w * weights[examples] * torch.tanh(x[examples] @ theta - y[examples]) ** 2).mean()

    descent = make(loss)
    steps = _steps(30, 0.05, batch=4)
    start = torch.randn(K, generator=generator, dtype=torch.float64)
    states = run(descent, start, steps)
    query = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    got = unrolled_scores(descent, states, steps, query, examples=N)
    epsilon = 1e-5
    for example in range(N):
        ends = []
        for sign in (1, -1):
            weights = torch.ones(N, dtype=torch.float64)
            weights[example] += sign * epsilon
            ends.append(run(descent, start, steps)[-1][0])
        slope = query[0] @ (ends[0] - ends[1]) / (2 * epsilon)
        assert_close(got[0, example], -N * slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("make", [
    (
        lambda loss: Descent(loss, momentum=0.8, weight_decay=0.05),
        lambda theta: torch.optim.SGD([theta], lr=0.1, momentum=0.8, weight_decay=0.05),
    ),
    (
        lambda loss: AdamDescent(loss, (0.9, 0.98), weight_decay=0.05),
        lambda theta: torch.optim.AdamW([theta], lr=0.1, betas=(0.9, 0.98), weight_decay=0.05),
    ),
], ids=["sgd", "adam"])  # fmt: skip
def test_the_run_is_that_of_torch_optim(make):
    _, _, loss = _quadratic()
    steps = _steps(20, 0.1, batch=2)
    theta = torch.nn.Parameter(torch.ones(K, dtype=torch.float64))
    optimizer = make[1](theta)
    for step in steps:
        optimizer.zero_grad()
        loss(theta, step.examples, torch.ones(2, dtype=torch.float64)).backward()
        optimizer.step()
    states = run(make[0](loss), torch.ones(K, dtype=torch.float64), steps)
    assert_close(states[-1][0], theta.detach())


def test_a_weight_that_no_gradient_reaches_is_left_and_passes_nothing_back():
    def loss(theta, examples, weights):
        return (weights * (examples + 1) * theta[0] ** 2).mean()

    descent, steps = AdamDescent(loss, (0.9, 0.98)), _steps(5, 0.1, batch=2)
    states = run(descent, torch.ones(2, dtype=torch.float64), steps)
    assert states[-1][0][1] == 1
    scores = unrolled_scores(descent, states, steps, torch.eye(2).double(), examples=N)
    assert torch.isfinite(scores).all()
    assert (scores[1] == 0).all()


def test_source_is_the_exact_expectation_over_data_orders_on_a_quadratic():
    """At the optimum gradients are stationary, which is SOURCE's assumption; nothing else is."""
    b, sigma, loss = _quadratic()
    optimum = torch.where(sigma > 0, b.mean(0) / sigma.clamp(min=1e-9), 0.0)
    rate, count = 2e-3, 250  # ησ/2 = 1e-3, the worst of a weight
    queries = torch.eye(K, dtype=torch.float64)
    descent = Descent(loss)
    # One curvature for all examples makes the expectation over orders the run on whole batches.
    steps = [Step(torch.arange(N), rate) for _ in range(count)]
    exact = unrolled_scores(descent, run(descent, optimum, steps), steps, queries, examples=N)
    gradients = sigma * optimum - b
    weights = segment_weights(sigma[None], torch.tensor([[rate * count]], dtype=torch.float64))[0]
    source = queries @ (weights * gradients).T
    assert_close(source, exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())


def test_many_segments_follow_training_from_far_away():
    b, sigma, loss = _quadratic()
    start = torch.tensor([3.0, -4.0, 2.0], dtype=torch.float64)
    rate, count, each = 2e-3, 250, 10
    descent = Descent(loss)
    steps = [Step(torch.arange(N), rate) for _ in range(count)]
    states = run(descent, start, steps)
    queries = torch.eye(K, dtype=torch.float64)
    exact = unrolled_scores(descent, states, steps, queries, examples=N)
    middles = torch.stack([states[i][0] for i in range(each // 2, count, each)])  # [L, K]
    lengths = torch.full((len(middles), 1), rate * each, dtype=torch.float64)
    weights = segment_weights(sigma.expand(len(middles), -1), lengths)
    gradients = sigma * middles[:, None] - b  # [L, N, K]
    source = queries @ (weights[:, None] * gradients).sum(0).T
    assert_close(source, exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())


def test_the_mean_over_data_orders_approaches_source():
    """Monte Carlo over runs, each differentiated through its own order of mini-batches."""
    b, sigma, loss = _quadratic()
    optimum = torch.where(sigma > 0, b.mean(0) / sigma.clamp(min=1e-9), 0.0)
    rate, count, runs = 2e-2, 24, 16
    queries = torch.eye(K, dtype=torch.float64)
    descent = Descent(loss)
    found = []
    for seed in range(runs):
        steps = _steps(count, rate, batch=2, seed=seed)
        states = run(descent, optimum, steps)
        found.append(unrolled_scores(descent, states, steps, queries, examples=N))
    weights = segment_weights(sigma[None], torch.tensor([[rate * count]], dtype=torch.float64))[0]
    source = queries @ (weights * (sigma * optimum - b)).T
    found = torch.stack(found)
    # Five standard errors of the mean over runs, and the flow's ησ/2 = 1e-2.
    error = 5 * found.std(0) / runs**0.5 + 1e-2 * source.abs()
    assert ((found.mean(0) - source).abs() <= error).all()
    assert error.max() < 0.5 * source.abs().max()
