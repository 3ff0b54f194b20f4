"""Ranks layer by layer: where a dearer projection buys most.

After whitening, coordinate ``(i, j)`` of a layer has the mean square ``λ_ij / (λ_ij + μ)``: near 1
where curvature stands above the damping, near 0 below. Their sum is the *effective dimension* that
a layer's ranks keep, and the mean self-influence which the layer contributes. With
``λ_ij = λB_i λA_j`` it follows from the spectra of the covariances, before any projection is made.

The cost is what logging pays for each token, in multiply-adds: ``d_in r_in`` once for all layers
that read one input, ``d_out r_out`` and ``r_in r_out`` for each layer. The budget is the cost of
one and the same rank in every layer. An input and its readers are decided together: under a price
per multiply-add their best ranks on a ladder are plain to see, and many prices give the choices
worth having. Then, from the smallest ranks on, the change of one such choice that buys most per
cost is made again and again while the budget lasts. Where a layer's spectrum is flat its ranks
grow, up to full; where it falls steeply they stay small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from influence.layers import LinearLayer

LADDER = (
    *(4, 6, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128),
    *(160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024),
)
PRICES = tuple(10 ** (-step / 4) for step in range(41))  # dimensions per multiply-add, 1 to 1e-10


@dataclass(frozen=True)
class Ranks:
    """``r_in`` under each input's leader, ``r_out`` under each layer's name."""

    inputs: dict[str, int]
    outputs: dict[str, int]


def uniform_ranks(layers: Sequence[LinearLayer], leaders: Mapping[str, str], rank: int) -> Ranks:
    """One rank everywhere, or the width where that is smaller."""
    return Ranks(
        {
            layer.name: min(rank, layer.d_in)
            for layer in layers
            if leaders[layer.name] == layer.name
        },
        {layer.name: min(rank, layer.d_out) for layer in layers},
    )


def logging_cost(layers: Sequence[LinearLayer], leaders: Mapping[str, str], ranks: Ranks) -> int:
    """Multiply-adds for each token that projecting costs, all layers together."""
    cost = 0
    for layer in layers:
        r_in, r_out = ranks.inputs[leaders[layer.name]], ranks.outputs[layer.name]
        cost += r_out * (layer.d_out + r_in)
        if leaders[layer.name] == layer.name:
            cost += r_in * layer.d_in
    return cost


def allocate_ranks(
    layers: Sequence[LinearLayer],
    leaders: Mapping[str, str],
    input_spectra: Mapping[str, Tensor],
    output_spectra: Mapping[str, Tensor],
    *,
    budget_rank: int,
    damping: float,
) -> Ranks:
    """Spend what ``budget_rank`` in every layer would cost where it buys most.

    Args:
        layers: The attributed layers.
        leaders: For each layer the first that reads the same input.
        input_spectra: Eigenvalues of ``E[a aᵀ]`` by falling size, for each leader; no rank is
            larger than their number.
        output_spectra: Those of ``E[g gᵀ]`` for each layer.
        budget_rank: The rank whose cost is the budget.
        damping: ``c``; ``μ`` is this fraction of the mean ``λ_ij`` at the budget's rank.
    """
    uniform = uniform_ranks(layers, leaders, budget_rank)
    budget = logging_cost(layers, leaders, uniform)
    groups = [
        _Group(
            [x for x in layers if leaders[x.name] == leader],
            input_spectra[leader],
            output_spectra,
            budget_rank=budget_rank,
            damping=damping,
        )
        for leader in uniform.inputs
    ]
    left = budget - sum(group.cost for group in groups)
    steps = [group.best_step(left) for group in groups]
    while any(step.gain > 0 for step in steps):
        number = max(range(len(steps)), key=lambda n: steps[n].gain)
        if steps[number].cost <= left:
            left -= steps[number].cost
            groups[number].take(steps[number])
        steps[number] = groups[number].best_step(left)
    ranks = Ranks({}, {})
    for group in groups:
        group.write(ranks)
    return ranks


@dataclass(frozen=True)
class _Step:
    """A change of one group's choice; ``gain`` is effective dimension per multiply-add."""

    gain: float
    cost: int
    choice: int


class _Group:
    """The layers that read one input, and the choices of ranks worth having for them."""

    def __init__(
        self,
        readers: Sequence[LinearLayer],
        inputs: Tensor,
        output_spectra: Mapping[str, Tensor],
        *,
        budget_rank: int,
        damping: float,
    ) -> None:
        self._readers = readers
        r_ins = torch.tensor(_ladder(len(inputs), budget_rank))
        kept = torch.zeros(len(PRICES), len(r_ins), dtype=torch.float64)
        cost = (readers[0].d_in * r_ins).expand(len(PRICES), -1)
        chosen = [r_ins.expand(len(PRICES), -1)]
        prices = torch.tensor(PRICES, dtype=torch.float64)[:, None, None]
        for x in readers:
            r_outs = torch.tensor(_ladder(len(output_spectra[x.name]), budget_rank))
            blocks = _effective_dimension(
                inputs, output_spectra[x.name], damping=damping, budget_rank=budget_rank
            )[r_outs][:, r_ins]
            costs = r_outs[:, None] * (x.d_out + r_ins)
            best = (blocks - prices * costs).argmax(dim=1)  # of each price and r_in
            kept = kept + blocks.gather(0, best)
            cost = cost + costs.gather(0, best)
            chosen.append(r_outs[best])
        order = cost.flatten().argsort(stable=True)
        self._costs = cost.flatten()[order]
        self._kept = kept.flatten()[order]
        self._ranks = torch.stack([c.flatten() for c in chosen], dim=1)[order]  # r_in, r_out, ...
        self._now = 0

    @property
    def cost(self) -> int:
        """Multiply-adds of the choice made."""
        return int(self._costs[self._now])

    def best_step(self, left: int) -> _Step:
        """The change that buys most for each of at most ``left`` more multiply-adds."""
        cost = self._costs - self._costs[self._now]
        gain = (self._kept - self._kept[self._now]) / cost.clamp(min=1)
        gain = torch.where((cost > 0) & (cost <= left), gain, 0.0)
        choice = int(gain.argmax())
        return _Step(float(gain[choice]), int(cost[choice]), choice)

    def take(self, step: _Step) -> None:
        """Change the choice."""
        self._now = step.choice

    def write(self, ranks: Ranks) -> None:
        """Name the chosen ranks."""
        r_in, *r_outs = self._ranks[self._now].tolist()
        ranks.inputs[self._readers[0].name] = r_in
        for x, r_out in zip(self._readers, r_outs, strict=True):
            ranks.outputs[x.name] = r_out


def _effective_dimension(
    inputs: Tensor, outputs: Tensor, *, damping: float, budget_rank: int
) -> Tensor:
    """Of every leading block, ``[R_out + 1, R_in + 1]``, indexed by its ranks."""
    values = torch.outer(outputs.double(), inputs.double())
    mu = damping * values[:budget_rank, :budget_rank].mean()
    shares = values / (values + mu) if mu > 0 else torch.zeros_like(values)
    return torch.nn.functional.pad(shares.cumsum(0).cumsum(1), (1, 0, 1, 0))


def _ladder(largest: int, budget_rank: int) -> list[int]:
    """Ranks to choose from, the full one last."""
    start = min(LADDER[0], budget_rank, largest)
    return sorted({start, *(r for r in LADDER if start < r < largest), largest})
