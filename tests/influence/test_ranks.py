"""Ranks under a budget, against a bound that no allocation can pass."""

from itertools import product

import pytest
import torch

from influence.layers import LinearLayer
from influence.ranks import Ranks, allocate_ranks, logging_cost, uniform_ranks

LAYERS = [
    LinearLayer("query", 32, 32),
    LinearLayer("value", 32, 16),
    LinearLayer("down", 48, 32),
]
LEADERS = {"query": "query", "value": "query", "down": "down"}
STEPS = (4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48)


def _spectrum(width: int, decay: float) -> torch.Tensor:
    return torch.arange(1, width + 1, dtype=torch.float64) ** -decay


def _spectra(query: float, down: float, out: float = 1.0):
    inputs = {"query": _spectrum(32, query), "down": _spectrum(48, down)}
    outputs = {layer.name: _spectrum(layer.d_out, out) for layer in LAYERS}
    return inputs, outputs


def _model(blocks: int):
    """The layers above once for each block, their spectra ever flatter."""
    layers, leaders, inputs, outputs = [], {}, {}, {}
    for block in range(blocks):
        decay = 2.0 - 1.8 * block / (blocks - 1)
        spectra = _spectra(decay, 2.2 - decay, 0.5 + decay / 2)
        inputs |= {f"{block}.{name}": values for name, values in spectra[0].items()}
        outputs |= {f"{block}.{name}": values for name, values in spectra[1].items()}
        layers += [LinearLayer(f"{block}.{x.name}", x.d_in, x.d_out) for x in LAYERS]
        leaders |= {f"{block}.{name}": f"{block}.{led}" for name, led in LEADERS.items()}
    return layers, leaders, inputs, outputs


def _kept(layer: LinearLayer, r_in, r_out, inputs, outputs, leaders, *, budget_rank, damping):
    """Effective dimension of one layer, entry by entry."""
    values = torch.outer(outputs[layer.name], inputs[leaders[layer.name]])
    mu = damping * values[:budget_rank, :budget_rank].mean()
    block = values[:r_out, :r_in]
    return float((block / (block + mu)).sum())


def _bound(layers, leaders, inputs, outputs, budget, **settings) -> float:
    """``min_p Σ_groups max(kept - p cost) + p budget``: weak duality, every choice listed."""
    groups = []
    for leader in inputs:
        readers = [x for x in layers if leaders[x.name] == leader]
        kept = {
            (x.name, r_in, r_out): _kept(x, r_in, r_out, inputs, outputs, leaders, **settings)
            for x in readers
            for r_in, r_out in product(STEPS, STEPS)
            if r_in <= x.d_in and r_out <= x.d_out
        }
        choices = []
        for r_in in (r for r in STEPS if r <= readers[0].d_in):
            for r_outs in product(*([r for r in STEPS if r <= x.d_out] for x in readers)):
                pairs = list(zip(readers, r_outs, strict=True))
                cost = readers[0].d_in * r_in + sum(r * (x.d_out + r_in) for x, r in pairs)
                choices.append((sum(kept[x.name, r_in, r] for x, r in pairs), cost))
        groups.append(torch.tensor(choices, dtype=torch.float64))
    prices = torch.logspace(-6, 1, 300, dtype=torch.float64)
    return min(
        float(sum((g[:, 0] - p * g[:, 1]).max() for g in groups) + p * budget) for p in prices
    )


def test_the_cost_is_counted_product_by_product():
    ranks = Ranks({"query": 3, "down": 5}, {"query": 2, "value": 4, "down": 6})
    once = 32 * 3 + 48 * 5  # query and value read one input
    each = 2 * (32 + 3) + 4 * (16 + 3) + 6 * (32 + 5)
    assert logging_cost(LAYERS, LEADERS, ranks) == once + each


def test_uniform_ranks_stop_at_the_widths():
    ranks = uniform_ranks(LAYERS, LEADERS, 24)
    assert ranks.inputs == {"query": 24, "down": 24}
    assert ranks.outputs == {"query": 24, "value": 16, "down": 24}


@pytest.mark.parametrize("damping", [0.01, 0.1])
@pytest.mark.parametrize("budget_rank", [12, 20])
def test_it_is_near_what_no_allocation_can_pass_and_never_too_dear(budget_rank, damping):
    layers, leaders, inputs, outputs = _model(6)
    settings = {"budget_rank": budget_rank, "damping": damping}
    uniform = uniform_ranks(layers, leaders, budget_rank)
    budget = logging_cost(layers, leaders, uniform)
    got = allocate_ranks(layers, leaders, inputs, outputs, **settings)

    def kept(ranks: Ranks) -> float:
        return sum(
            _kept(
                x,
                ranks.inputs[leaders[x.name]],
                ranks.outputs[x.name],
                *(inputs, outputs, leaders),
                **settings,
            )
            for x in layers
        )

    assert logging_cost(layers, leaders, got) <= budget
    # The bound has a gap of its own, since ranks come in steps.
    assert kept(got) > 0.95 * _bound(layers, leaders, inputs, outputs, budget, **settings)
    assert kept(got) > 1.05 * kept(uniform)


def test_a_flat_spectrum_gets_more_than_a_steep_one():
    inputs, outputs = _spectra(2.5, 0.1)
    got = allocate_ranks(LAYERS, LEADERS, inputs, outputs, budget_rank=16, damping=0.1)
    assert got.inputs["down"] > 16 > got.inputs["query"]


def test_where_the_budget_allows_it_ranks_are_full():
    inputs, outputs = _spectra(1.0, 1.0)
    got = allocate_ranks(LAYERS, LEADERS, inputs, outputs, budget_rank=64, damping=0.1)
    assert got == uniform_ranks(LAYERS, LEADERS, 64)


def test_no_rank_is_larger_than_the_known_spectrum_and_nothing_is_spent_on_nothing():
    inputs, outputs = _spectra(1.0, 1.0)
    inputs["query"] = inputs["query"][:10]
    outputs["down"] = torch.zeros(32, dtype=torch.float64)  # no gradient ever reaches it
    got = allocate_ranks(LAYERS, LEADERS, inputs, outputs, budget_rank=16, damping=0.1)
    assert got.inputs["query"] <= 10
    assert got.inputs["down"] == 4
    assert got.outputs["down"] == 4


def test_a_budget_below_the_smallest_step_is_kept_too():
    inputs, outputs = _spectra(1.0, 1.0)
    got = allocate_ranks(LAYERS, LEADERS, inputs, outputs, budget_rank=3, damping=0.1)
    budget = logging_cost(LAYERS, LEADERS, uniform_ranks(LAYERS, LEADERS, 3))
    assert logging_cost(LAYERS, LEADERS, got) <= budget
    assert min([*got.inputs.values(), *got.outputs.values()]) == 3
