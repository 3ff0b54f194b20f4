"""Kronecker eigenbasis and damped eigenvalues of one layer's curvature (EK-FAC, arXiv 1806.03884).

The Fisher of a linear layer is approximated in the eigenbasis of ``A ⊗ B``, ``A = E[a aᵀ]`` over
layer inputs and ``B = E[g gᵀ]`` over output gradients, with the eigenvalues measured there:
``λ_ij = E[G_ij²]`` for the projected gradient ``G = P_out (dL/dW) P_inᵀ`` of an example.

The leading eigenvectors come from a Nyström sketch ``Y = A Ω`` of ``l`` columns (Tropp et al. 2017,
arXiv 1706.05736): ``A ≈ Y (ΩᵀY)⁻¹ Yᵀ``. It costs ``2 d l`` instead of ``d²`` products a token and
``d × l`` numbers instead of ``d × d``, whatever the width. Where ``l ≥ d``, Ω is the identity and
nothing is approximated.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from influence.errors import NumericalError


def random_orthonormal(rows: int, width: int, *, seed: int) -> Tensor:
    """``[rows, width]`` float64 with orthonormal rows; the same on every machine for one seed."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(width, rows, generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).T.contiguous()


@dataclass(frozen=True)
class Subspace:
    """Leading eigenvectors of a covariance.

    Attributes:
        basis: Orthonormal rows, ``[r, d]``, float64, by falling eigenvalue.
        eigenvalues: ``[r]``, float64; those of the Nyström approximation, never too large.
        trace: Trace of the whole covariance, so ``eigenvalues.sum() / trace`` is the share kept.
    """

    basis: Tensor
    eigenvalues: Tensor
    trace: float

    @property
    def share_kept(self) -> float:
        """Share of the covariance's trace inside the subspace."""
        return float(self.eigenvalues.sum()) / self.trace if self.trace > 0 else 1.0


class CovarianceSketch:
    """``E[v vᵀ]`` of a stream of vectors, kept as ``d × l`` numbers in float64."""

    def __init__(self, width: int, columns: int, *, seed: int, device: torch.device) -> None:
        self.width = width
        self.columns = min(columns, width)
        self.omega: Tensor | None = None  # None is the identity: the exact covariance
        if self.columns < width:
            omega = random_orthonormal(self.columns, width, seed=seed).T
            self.omega = omega.to(device, torch.float32)
        self.sketch = torch.zeros(width, self.columns, dtype=torch.float64, device=device)
        self.trace = torch.zeros((), dtype=torch.float64, device=device)
        self.count = 0
        self.left_out = 0  # vectors that were not finite

    def update(self, rows: Tensor) -> None:
        """Add vectors ``[n, d]``; one whose square is not finite is left out and counted.

        Products of one batch run in float32 (an error of about 1e-6 relative, far below the
        sampling error of any covariance); the sum over batches is float64.
        """
        rows = rows.float()
        energies = rows.square().sum(dim=1)
        sound = torch.isfinite(energies)
        if not sound.all():
            self.left_out += int((~sound).sum())
            rows, energies = rows[sound], energies[sound]
        image = rows if self.omega is None else rows @ self.omega  # [n, l]
        self.sketch += (rows.T @ image).double()
        self.trace += energies.sum(dtype=torch.float64)
        self.count += len(rows)

    def subspace(self, rank: int, *, seed: int) -> Subspace:
        """The ``rank`` leading eigenvectors (all, where the width is smaller).

        A covariance of lower rank than asked for is completed by seeded random directions of
        eigenvalue 0, so the projection has the promised shape.

        Raises:
            NumericalError: The covariance holds a NaN or an infinity.
        """
        rank = min(rank, self.width)
        count = max(self.count, 1)
        sketch = (self.sketch / count).cpu()
        trace = float(self.trace) / count
        if not torch.isfinite(sketch).all():
            raise NumericalError(
                f"A covariance of width {self.width} over {self.count} vectors is not finite. "
                "Find the passages whose gradient is not finite, or use --dtype float32."
            )
        factor = self._nystrom_factor(sketch)
        u, s, _ = torch.linalg.svd(factor, full_matrices=False)
        basis, eigenvalues = u[:, :rank], s[:rank].square()  # none, where nothing was ever added
        sound = eigenvalues > eigenvalues[:1].clamp(min=1e-300) * 1e-14
        basis, eigenvalues = basis[:, sound], eigenvalues[sound]
        missing = rank - basis.shape[1]
        if missing:
            extra = random_orthonormal(rank, self.width, seed=seed).T
            extra = extra - basis @ (basis.T @ extra)
            basis = torch.cat([basis, torch.linalg.qr(extra).Q[:, :missing]], dim=1)
            basis = torch.linalg.qr(basis).Q  # qr flips signs at most, within equal spans
            eigenvalues = torch.cat([eigenvalues, torch.zeros(missing, dtype=torch.float64)])
        return Subspace(_fixed_signs(basis.T), eigenvalues, trace)

    def _nystrom_factor(self, sketch: Tensor) -> Tensor:
        """``F`` with ``F Fᵀ`` = the Nyström approximation, ``[d, l]``."""
        core = sketch if self.omega is None else self.omega.cpu().double().T @ sketch
        values, vectors = torch.linalg.eigh((core + core.T) / 2)
        if self.omega is None:
            return vectors * values.clamp(min=0).sqrt()
        # Directions below float32 accuracy of the products are noise, and dividing by their
        # root would blow that noise up.
        sound = values > values[-1].clamp(min=0) * 1e-6
        return sketch @ (vectors[:, sound] / values[sound].sqrt())


def _fixed_signs(basis: Tensor) -> Tensor:
    """Each row with its largest entry positive: LAPACK leaves the sign open."""
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    return (basis * largest.sign()).contiguous()


def damped_inverse_root(eigenvalues: Tensor, *, damping: float) -> Tensor:
    """``(λ_ij + c λ̄)^-½`` with ``λ̄`` the mean eigenvalue of the layer.

    Args:
        eigenvalues: ``[r_out, r_in]``, not negative.
        damping: ``c``, as a fraction of the mean eigenvalue; above 0.

    Raises:
        ValueError: The damping is not above 0.
    """
    if not damping > 0:
        raise ValueError(f"damping is {damping}; it must be above 0, such as 0.1.")
    mean = eigenvalues.mean()
    if float(mean) <= 0:  # a layer that no gradient reached: it adds nothing to any score
        return torch.zeros_like(eigenvalues)
    return (eigenvalues + damping * mean).rsqrt()
