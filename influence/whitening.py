"""Half-whitening: multiplying by ``(C + μI)^-½`` for a covariance ``C``.

Every whitening here is a symmetric matrix, so `forward` is its own transpose. Three forms:

- *diagonal*, where ``C`` is diagonal in the coordinates at hand (EK-FAC in its eigenbasis);
- *low rank*, where ``C`` is known from few vectors. From ``n`` vectors ``u`` of ``D`` coordinates,
  ``C = E[u uᵀ] = U diag(s) Uᵀ`` has rank ``n`` at most, and with ``μ = c · mean(s)`` *over that
  rank*,

      (C + μI)^-½ u = μ^-½ (u + U diag(√(μ/(s + μ)) - 1) Uᵀ u),

  so ``D × n`` numbers serve instead of ``D × D``. The constant ``μ^-½`` is kept: the inner product
  of two whitened vectors is ``uᵀ (C + μI)⁻¹ v`` in full, units included;
- *blocks* of these along the diagonal, one for each layer.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from influence.errors import NumericalError


class Whitening(Protocol):
    """``(C + μI)^-½``, symmetric."""

    def forward(self, u: Tensor) -> Tensor:
        """``(C + μI)^-½ u`` for rows ``[B, D]``."""
        ...

    def inverse(self, z: Tensor) -> Tensor:
        """``(C + μI)^½ z``: undoes `forward`."""
        ...


@dataclass(frozen=True)
class DiagonalWhitening:
    """``diag(roots)``: ``(λ + μ)^-½`` of each coordinate, or 0 where it is dropped."""

    roots: Tensor

    def forward(self, u: Tensor) -> Tensor:
        """``roots · u`` for rows ``[B, D]``."""
        return u * self.roots.to(u.dtype)

    def inverse(self, z: Tensor) -> Tensor:
        """``z / roots``; a dropped coordinate stays 0."""
        roots = self.roots.to(z.dtype)
        return torch.where(roots > 0, z / roots, 0.0)


@dataclass(frozen=True)
class BlockWhitening:
    """A whitening for each run of coordinates, ``(width, whitening)``."""

    blocks: Sequence[tuple[int, Whitening]]

    def forward(self, u: Tensor) -> Tensor:
        """Each block by itself, ``[B, D]``."""
        return torch.cat([block.forward(part) for block, part in self._parts(u)], dim=1)

    def inverse(self, z: Tensor) -> Tensor:
        """Undoes `forward`."""
        return torch.cat([block.inverse(part) for block, part in self._parts(z)], dim=1)

    def _parts(self, rows: Tensor) -> Iterator[tuple[Whitening, Tensor]]:
        widths = [width for width, _ in self.blocks]
        for (_, block), part in zip(self.blocks, rows.split(widths, dim=1), strict=True):
            yield block, part


@dataclass(frozen=True)
class LowRankWhitening:
    """``(C + μI)^-½`` with ``C = U diag(s) Uᵀ``.

    Attributes:
        vectors: ``U``, orthonormal columns, ``[D, n]``.
        eigenvalues: ``s``, ``[n]``, positive, float64.
        damping: ``c``, a fraction of the mean of ``s``; infinity turns the whitening off.
    """

    vectors: Tensor
    eigenvalues: Tensor
    damping: float

    @classmethod
    def fit(cls, sample: Tensor, *, damping: float) -> "LowRankWhitening":
        """From vectors ``[n, D]``; decomposes the smaller Gram matrix, in float64.

        Raises:
            NumericalError: A vector is not finite, or their covariance will not decompose.
            ValueError: The damping is not above 0.
        """
        if not damping > 0:
            raise ValueError(
                f"joint damping is {damping}; it must be above 0, such as 1 (inf turns it off)."
            )
        if not torch.isfinite(sample).all():
            raise NumericalError(
                "A vector of the fit sample is not finite; the whitening cannot be fitted. "
                "Find the passage whose gradient is not finite, or use --dtype float32."
            )
        n, dims = sample.shape
        if math.isinf(damping) or n == 0:
            empty = torch.zeros(dims, 0, device=sample.device, dtype=sample.dtype)
            return cls(empty, torch.zeros(0, dtype=torch.float64), math.inf)
        wide = sample.double()
        gram = (wide @ wide.T if n <= dims else wide.T @ wide) / n
        try:
            values, vectors = torch.linalg.eigh(gram)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise NumericalError(
                f"The covariance of {n} vectors of {dims} numbers will not decompose ({error}). "
                "Fit on more passages (--fit-passages), or use --dtype float32."
            ) from error
        sound = values > values[-1].clamp(min=1e-300) * 1e-12
        values, vectors = values[sound], vectors[:, sound]
        if n <= dims:
            vectors = wide.T @ (vectors / (values * n).sqrt())
        return cls(vectors.to(sample.dtype).contiguous(), values.cpu(), damping)

    def to(self, device: torch.device) -> "LowRankWhitening":
        """The same with its vectors on a device; the eigenvalues stay where they are."""
        return replace(self, vectors=self.vectors.to(device))

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing: switched off, or fitted on nothing."""
        return math.isinf(self.damping) or len(self.eigenvalues) == 0

    @property
    def mu(self) -> float:
        """The damping in the units of the covariance."""
        return self.damping * float(self.eigenvalues.mean())

    def forward(self, u: Tensor) -> Tensor:
        """``(C + μI)^-½ u`` for rows ``[B, D]``."""
        inside, outside = self._gains()
        return self._apply(u, inside, outside)

    def inverse(self, z: Tensor) -> Tensor:
        """``(C + μI)^½ z``: undoes `forward`."""
        inside, outside = self._gains()
        return self._apply(z, 1 / inside, 1 / outside)

    def redamped(self, z: Tensor, other: "LowRankWhitening") -> Tensor:
        """Vectors whitened by this, as ``other`` of the same ``C`` and another damping has them.

        ``(C + μ'I)^-½ (C + μI)^½ z`` in one product, so nothing is blown up in between.
        """
        (inside, outside), (new_inside, new_outside) = self._gains(), other._gains()
        return self._apply(z, new_inside / inside, new_outside / outside)

    def _gains(self) -> tuple[Tensor, float]:
        """What `forward` multiplies with: along each column of ``U``, and elsewhere."""
        if self.is_identity:
            return torch.ones_like(self.eigenvalues), 1.0
        return (self.eigenvalues + self.mu).rsqrt(), self.mu**-0.5

    def _apply(self, u: Tensor, inside: Tensor, outside: float) -> Tensor:
        change = inside / outside - 1
        if not change.count_nonzero():
            return u if outside == 1 else u * outside
        vectors = self.vectors.to(u.dtype)
        return (u + (u @ vectors * change.to(u.device, u.dtype)) @ vectors.T) * outside
