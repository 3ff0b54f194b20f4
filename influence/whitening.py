"""Half-whitening with a covariance known from few examples: identity plus low rank.

From ``n`` vectors ``u`` of ``D`` coordinates, ``C = E[u uᵀ] = U diag(s) Uᵀ`` has rank ``n`` at
most. With ``μ = c₂ · mean(s)`` over that rank,

    (C + μI)^-½ u = μ^-½ (u + U diag(√(μ/(s + μ)) - 1) Uᵀ u),

so ``D × n`` numbers serve instead of ``D × D``. The constant ``μ^-½`` is kept, so that the inner
product of two whitened vectors is ``uᵀ (C + μI)⁻¹ v`` in full, units included.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from influence.errors import NumericalError


@dataclass(frozen=True)
class LowRankWhitening:
    """``(C + μI)^-½``.

    Attributes:
        vectors: ``U``, orthonormal columns, ``[D, n]``.
        eigenvalues: ``s``, ``[n]``, positive, float64.
        damping: ``c₂``, a fraction of the mean of ``s``; infinity turns the whitening off.
    """

    vectors: Tensor
    eigenvalues: Tensor
    damping: float

    @classmethod
    def fit(cls, sample: Tensor, *, damping: float) -> "LowRankWhitening":
        """From vectors ``[n, D]``; decomposes the smaller Gram matrix, in float64.

        Raises:
            NumericalError: A vector is not finite.
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
        if n <= dims:
            values, left = torch.linalg.eigh(wide @ wide.T / n)
            sound = values > values[-1].clamp(min=1e-300) * 1e-12
            values = values[sound]
            vectors = wide.T @ (left[:, sound] / (values * n).sqrt())
        else:
            values, vectors = torch.linalg.eigh(wide.T @ wide / n)
            sound = values > values[-1].clamp(min=1e-300) * 1e-12
            values, vectors = values[sound], vectors[:, sound]
        return cls(vectors.to(sample.dtype).contiguous(), values.cpu(), damping)

    @property
    def mu(self) -> float:
        """The damping in the units of the covariance."""
        return self.damping * float(self.eigenvalues.mean())

    def _apply(self, u: Tensor, factors: Tensor, scale: float) -> Tensor:
        inner = u @ self.vectors.to(u.dtype)
        change = (factors - 1).to(u.device, u.dtype)
        return (u + (inner * change) @ self.vectors.to(u.dtype).T) * scale

    def forward(self, u: Tensor) -> Tensor:
        """``(C + μI)^-½ u`` for rows ``[B, D]``; symmetric, so it is its own transpose."""
        if math.isinf(self.damping) or len(self.eigenvalues) == 0:
            return u
        mu = self.mu
        return self._apply(u, (mu / (self.eigenvalues + mu)).sqrt(), mu**-0.5)

    def inverse(self, z: Tensor) -> Tensor:
        """``(C + μI)^½ z``: undoes `forward`."""
        if math.isinf(self.damping) or len(self.eigenvalues) == 0:
            return z
        mu = self.mu
        return self._apply(z, ((self.eigenvalues + mu) / mu).sqrt(), mu**0.5)
