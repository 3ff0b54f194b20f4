"""How much of a gradient the basis of an index does not see.

The projections keep the directions in which the gradients of a sample lay. A corpus that grows may
move away from them, and what lies outside is lost to every score. For a passage

    outside = 1 - Σ_l ‖P_out G_l P_inᵀ‖² / Σ_l ‖G_l‖²,      G_l = Σ_t g_t a_tᵀ,

summed over the attributed layers ``l``, and its mean over passages is compared with that of the
sample. The whole gradient need not be made: ``‖Σ_t g_t a_tᵀ‖² = Σ_st (g_s·g_t)(a_s·a_t)``.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from influence.basis import Basis
from influence.projection import LayerProjection, ProjectionReceiver
from influence.task import Task, run_backward


def gradient_energy(x: Tensor, g: Tensor) -> Tensor:
    """``‖Σ_t g_t x_tᵀ‖²`` of each example: ``[B, T, d_in]``, ``[B, T, d_out]`` -> ``[B]``.

    Over pairs of tokens or entry by entry, whichever is less work.
    """
    x, g = x.float(), g.float()
    tokens, d_in, d_out = x.shape[1], x.shape[2], g.shape[2]
    if tokens * (d_in + d_out) < d_in * d_out:
        return ((x @ x.mT) * (g @ g.mT)).sum(dim=(1, 2))
    return (g.mT @ x).square().sum(dim=(1, 2))


def outside_shares(task: Task, basis: Basis, examples: Sequence[Any]) -> Tensor:
    """Share of each example's gradient energy outside the kept coordinates, in [0, 1].

    Args:
        task: Model and loss.
        basis: With the projections, on the device of the task.
        examples: As many as fit into memory. One without a gradient, or with one that is not
            finite, is left out of the result.
    """
    layers = [layer.layer for layer in basis.layers]
    calls = _Calls()
    run_backward(task, task.batch(examples[:1]), layers, basis.leaders, calls)
    repeated = {name for name, count in calls.counts.items() if count > 1}
    batch = task.batch(examples)
    projections = basis.projections(task.product_dtype)
    receiver = _Energies(projections, batch.size, task.device, repeated)
    run_backward(task, batch, layers, basis.leaders, receiver)
    whole, kept = receiver.energies()
    usable = torch.isfinite(whole) & torch.isfinite(kept) & (whole > 0)
    return (1 - kept[usable] / whole[usable]).clamp(0, 1).cpu()


class _Calls:
    """Counts how often each layer is called in a pass."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def on_input(self, layer: str, x: Tensor) -> None:
        return None

    def on_gradient(self, layer: str, seen: None, g: Tensor) -> None:
        self.counts[layer] += 1


class _Energies:
    """Receives captured tensors and adds energies up, whole and projected."""

    def __init__(
        self,
        projections: Sequence[LayerProjection],
        batch: int,
        device: torch.device,
        repeated: set[str],
    ) -> None:
        self._projected = ProjectionReceiver(projections, batch, device)
        self._whole = torch.zeros(batch, device=device)
        # The calls of one layer make one gradient, and only when all have come its energy is known.
        self._calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in repeated}

    def on_input(self, layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self._projected.on_input(layer, x)

    def on_gradient(self, layer: str, seen: tuple[Tensor, Tensor], g: Tensor) -> None:
        x, projected = seen
        self._projected.on_gradient(layer, projected, g)
        if layer in self._calls:
            self._calls[layer].append((x, g))
        else:
            with torch.autocast(g.device.type, enabled=False):
                self._whole += gradient_energy(x, g)

    def energies(self) -> tuple[Tensor, Tensor]:
        """Of whole and of projected gradients, each ``[B]``."""
        for calls in self._calls.values():
            if calls:
                x, g = (torch.cat(tensors, dim=1) for tensors in zip(*calls, strict=True))
                self._whole += gradient_energy(x, g)
        return self._whole, self._projected.coordinates.square().sum(dim=1)
