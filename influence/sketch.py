"""CountSketch: ``K`` coordinates into ``D`` sums, without bias, with additions only.

Coordinates are padded to a multiple of ``D``, given random signs, permuted, and summed in equal
bins, all from one seed. For fixed ``x``, ``y`` and a random seed

    E⟨Sx, Sy⟩ = ⟨x, y⟩,
    Var⟨Sx, Sy⟩ = (m - 1)/(mD - 1) · (‖x‖²‖y‖² + ⟨x, y⟩² - 2 Σ x_i² y_i²),   m = ⌈K / D⌉

since two coordinates meet in a bin with probability ``(m - 1)/(mD - 1)`` (Charikar et al. 2002,
with bins of equal size). So a cosine is blurred by about ``1/√D``, whatever ``K`` is.
"""

import math

import torch
from torch import Tensor


class CountSketch:
    """The sketch from ``coordinates`` to ``dims``; the identity where nothing needs sketching."""

    def __init__(self, coordinates: int, dims: int, *, seed: int, device: torch.device) -> None:
        self.coordinates = coordinates
        self.dims = min(dims, coordinates)
        self.is_identity = coordinates <= dims
        if self.is_identity:
            return
        padded = math.ceil(coordinates / dims) * dims
        generator = torch.Generator().manual_seed(seed)  # drawn on the CPU: equal everywhere
        source = torch.randperm(padded, generator=generator)
        signs = torch.randint(0, 2, (padded,), generator=generator, dtype=torch.int8) * 2 - 1
        signs[source >= coordinates] = 0  # padding
        self.source = source.clamp_(max=coordinates - 1).to(device)
        self.signs = signs.to(device, torch.float32)

    @property
    def noise(self) -> float:
        """Standard deviation that the sketch adds to a cosine of unrelated vectors."""
        if self.is_identity:
            return 0.0
        folds = math.ceil(self.coordinates / self.dims)
        return math.sqrt((folds - 1) / (folds * self.dims - 1))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, K]`` -> ``[B, D]``; the sum runs in a fixed order, so the bits are fixed too."""
        if self.is_identity:
            return x
        folds = len(self.source) // self.dims
        gathered = x.index_select(1, self.source) * self.signs
        return gathered.view(len(x), folds, self.dims).sum(dim=1)

    def transpose(self, y: Tensor) -> Tensor:
        """The adjoint, ``[B, D]`` -> ``[B, K]``: ``⟨Sx, y⟩ = ⟨x, Sᵀy⟩``."""
        if self.is_identity:
            return y
        folds = len(self.source) // self.dims
        spread = y.repeat(1, folds) * self.signs
        out = y.new_zeros(len(y), self.coordinates)
        kept = self.signs != 0
        out[:, self.source[kept]] = spread[:, kept]
        return out
