"""Projected gradients of every example of a batch, layer by layer, into one array.

``dL/dW = Σ_t g_t a_tᵀ`` over the tokens of an example, so the projected gradient
``P_out (dL/dW) P_inᵀ = Σ_t (P_out g_t)(P_in a_t)ᵀ`` needs no ``d_out × d_in`` array
(LoGra, arXiv 2405.13954).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerProjection:
    """The two projections of one layer: ``p_in [r_in, d_in]``, ``p_out [r_out, d_out]``."""

    name: str
    p_in: Tensor
    p_out: Tensor

    @property
    def coordinates(self) -> int:
        """``r_out · r_in``."""
        return len(self.p_in) * len(self.p_out)


def project_gradient(x: Tensor, g: Tensor, p_in: Tensor, p_out: Tensor) -> Tensor:
    """Project the weight gradient of every example in a batch.

    Args:
        x: Layer input, ``[B, T, d_in]``.
        g: Gradient of the summed loss in the layer output, ``[B, T, d_out]``; 0 at padding.
        p_in: Input projection, ``[r_in, d_in]``.
        p_out: Output projection, ``[r_out, d_out]``.

    Returns:
        ``P_out (dL/dW) P_inᵀ`` of each example, ``[B, r_out, r_in]``.
    """
    return _sum_of_outer_products(x @ p_in.T, g @ p_out.T)


def _sum_of_outer_products(x: Tensor, g: Tensor) -> Tensor:
    """``Σ_t g_t x_tᵀ``: ``[B, T, r_in]``, ``[B, T, r_out]`` -> ``[B, r_out, r_in]``."""
    return torch.bmm(g.transpose(1, 2), x)


class ProjectionReceiver:
    """Receives captured tensors and adds projected gradients up in `coordinates`.

    Attributes:
        coordinates: ``[B, K]`` float32, the layers one after the other, each ``[r_out, r_in]``.
    """

    def __init__(
        self, projections: Sequence[LayerProjection], batch: int, device: torch.device
    ) -> None:
        self._projections = {p.name: p for p in projections}
        total = sum(p.coordinates for p in projections)
        self.coordinates = torch.zeros(batch, total, device=device)
        self._views: dict[str, Tensor] = {}
        start = 0
        for p in projections:
            view = self.coordinates[:, start : start + p.coordinates]
            self._views[p.name] = view.view(batch, len(p.p_out), len(p.p_in))
            start += p.coordinates

    def on_input(self, layer: str, x: Tensor) -> Tensor:
        """``P_in a`` of every token, ``[B, T, r_in]``."""
        p_in = self._projections[layer].p_in
        with torch.autocast(x.device.type, enabled=False):
            return x.to(p_in.dtype) @ p_in.T

    def on_gradient(self, layer: str, seen: Tensor, g: Tensor) -> None:
        """Add this call's share; a layer called twice in a forward pass adds up."""
        p_out = self._projections[layer].p_out
        with torch.autocast(g.device.type, enabled=False):
            gradient = _sum_of_outer_products(seen, g.to(p_out.dtype) @ p_out.T)
        self._views[layer] += gradient
