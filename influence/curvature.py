"""Kronecker eigenbasis and damped eigenvalues of one layer's curvature (EK-FAC, arXiv 1806.03884).

The Fisher of a linear layer is approximated in the eigenbasis of ``A ⊗ B``, ``A = E[a aᵀ]`` over
layer inputs and ``B = E[g gᵀ]`` over output gradients, both means over tokens.

*EK-FAC* measures the eigenvalues there: ``λ_ij = E[G_ij²]`` over passages, for the projected
gradient ``G = P_out (dL/dW) P_inᵀ``. *K-FAC* multiplies those of the factors. As the gradient of a
passage is a sum over its ``T`` tokens, ``dL/dW = Σ_t g_t a_tᵀ``,

    E[G_ij²] = E[Σ_t g_ti² a_tj²] + (cross terms) = E[T] λB_i λA_j

where tokens are independent, gradients have mean 0 and ``a`` says nothing about ``g``: then both
agree, in scale too.

The leading eigenvectors come from a Nyström sketch ``Y = A Ω`` of ``l`` columns (Tropp et al. 2017,
arXiv 1706.05736): ``A ≈ Y (ΩᵀY)⁻¹ Yᵀ``. It costs ``2 d l`` instead of ``d²`` products a token and
``d × l`` numbers instead of ``d × d``, whatever the width. Where ``l ≥ d``, Ω is the identity and
nothing is approximated.
"""

import math
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

    def leading(self, rank: int) -> "Subspace":
        """Its first ``rank`` directions."""
        return Subspace(self.basis[:rank], self.eigenvalues[:rank], self.trace)


def random_subspace(rank: int, width: int, *, seed: int) -> Subspace:
    """Random directions, as many as the width allows, with the share they keep on average.

    ``E tr(P A Pᵀ) = (r / d) tr(A)`` over random ``P`` whatever ``A`` is, so they are described as
    directions of a white covariance.
    """
    basis = random_orthonormal(min(rank, width), width, seed=seed)
    return Subspace(basis, torch.ones(len(basis), dtype=torch.float64), float(width))


@dataclass(frozen=True)
class Contribution:
    """Vectors of one batch as a covariance sketch takes them in: ``Σ v (Ωᵀv)ᵀ``, ``[d, l]``."""

    product: Tensor
    energy: Tensor  # Σ ‖v‖²
    count: int
    left_out: int


NYSTROM_OVERSAMPLING = 2  # columns of a sketch for each eigenvector that is taken from it


class CovarianceSketch:
    """``E[v vᵀ]`` of a stream of vectors, kept as ``d × l`` numbers in float64."""

    def __init__(
        self, width: int, columns: int, *, seed: int, device: torch.device, name: str = "a layer"
    ) -> None:
        self.name = name
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

    @property
    def largest_rank(self) -> int:
        """Eigenvectors it can give: all of an exact covariance, fewer than the columns else."""
        return self.width if self.omega is None else self.columns // NYSTROM_OVERSAMPLING

    def contribution(self, rows: Tensor) -> Contribution:
        """What vectors ``[n, d]`` would add; one whose square is not finite is left out.

        Products of one batch run in float32 (an error of about 1e-6 relative, far below the
        sampling error of any covariance); the sum over batches is float64.
        """
        rows = rows.float()
        energies = rows.square().sum(dim=1)
        sound = torch.isfinite(energies)
        left_out = 0
        if not sound.all():
            left_out = int((~sound).sum())
            rows, energies = rows[sound], energies[sound]
        image = rows if self.omega is None else rows @ self.omega  # [n, l]
        energy = energies.sum(dtype=torch.float64)
        return Contribution(rows.T @ image, energy, len(rows), left_out)

    def add(self, contribution: Contribution) -> None:
        """Add what `contribution` gave."""
        self.sketch += contribution.product
        self.trace += contribution.energy
        self.count += contribution.count
        self.left_out += contribution.left_out

    def update(self, rows: Tensor) -> None:
        """Add vectors ``[n, d]``."""
        self.add(self.contribution(rows))

    def subspace(self, rank: int, *, seed: int) -> Subspace:
        """The ``rank`` leading eigenvectors (all, where the width is smaller).

        A covariance of lower rank than asked for is completed by seeded random directions of
        eigenvalue 0, so the projection has the promised shape.

        Raises:
            NumericalError: The covariance is not finite, will not decompose, or all its vectors
                were left out.
        """
        rank = min(rank, self.width)
        count = max(self.count, 1)
        sketch = (self.sketch / count).cpu()
        trace = float(self.trace) / count
        if not torch.isfinite(sketch).all() or (self.left_out and not self.count):
            raise NumericalError(
                f"The covariance of {self.name} (width {self.width} over {self.count} vectors, "
                f"{self.left_out} left out) is not finite. Find the passages whose gradient is not "
                "finite, or use --dtype float32."
            )
        try:
            return self._decomposed(sketch, trace, rank, seed)
        except torch.linalg.LinAlgError as error:  # pyright: ignore[reportPrivateImportUsage]
            raise NumericalError(
                f"The covariance of {self.name} (width {self.width} over {self.count} vectors) "
                f"will not decompose ({error}). Fit on more passages (--fit-passages), or use "
                "--dtype float32."
            ) from error

    def _decomposed(self, sketch: Tensor, trace: float, rank: int, seed: int) -> Subspace:
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


def kfac_eigenvalues(inputs: Subspace, outputs: Subspace, *, tokens_per_passage: float) -> Tensor:
    """``λ_ij = E[T] λB_i λA_j``, ``[r_out, r_in]`` float64; see the module."""
    return tokens_per_passage * torch.outer(outputs.eigenvalues, inputs.eigenvalues)


def damped_inverse_root(eigenvalues: Tensor, *, damping: float) -> Tensor:
    """``(λ_ij + c λ̄)^-½`` with ``λ̄`` the mean eigenvalue of the layer.

    Args:
        eigenvalues: ``[r_out, r_in]``, not negative.
        damping: ``c``, as a fraction of the mean eigenvalue; above 0.

    Raises:
        ValueError: The damping is not above 0, or infinite.
    """
    if not 0 < damping < math.inf:
        raise ValueError(f"damping is {damping}; it must be finite and above 0, such as 0.1.")
    mean = eigenvalues.mean()
    if float(mean) <= 0:  # a layer that no gradient reached: it adds nothing to any score
        return torch.zeros_like(eigenvalues)
    return (eigenvalues + damping * mean).rsqrt()
