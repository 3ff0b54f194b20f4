"""Reference scores on full gradients, without projection: slow, small, and obviously right.

All of them are ``score[q, i] = g_qᵀ (H + λI)⁻¹ g_i``; they differ in ``H`` and in how the system is
solved. Gradients are rows of float64 arrays with every coordinate of every attributed layer, so
these are for models of up to some 10⁵ coordinates and corpora of a few thousand examples.

    H = 0        `dot_scores`, `cosine_scores`
    any matrix   `dense_solve`
    RᵀR / n      `low_rank_solve`, exact for any number of coordinates (Woodbury)
    a product    `conjugate_gradients`, `lissa`: only ``v ↦ Hv`` is needed

Rows ``R`` are the gradients of the examples themselves (empirical Fisher), or those that
`gauss_newton_rows` makes (Gauss-Newton, for a classifier the true Fisher). Full-size EK-FAC is
Whence's own with ranks as large as the layers, nothing sketched and no joint whitening.

Letters: Q vectors to solve for, N examples, n rows, k coordinates, C classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from influence.errors import NumericalError

Product = Callable[[Tensor], Tensor]  # [Q, k] -> [Q, k]: Hv for every row v


def dot_scores(queries: Tensor, train: Tensor) -> Tensor:
    """Gradient dot product, ``[Q, k]``, ``[N, k]`` -> ``[Q, N]``: the score with ``H = 0``."""
    return queries @ train.T


def cosine_scores(queries: Tensor, train: Tensor) -> Tensor:
    """The same divided by both norms; a zero gradient scores 0."""
    return _unit(queries) @ _unit(train).T


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)


def gauss_newton_rows(jacobian: Tensor, probabilities: Tensor) -> Tensor:
    """Rows whose ``RᵀR`` is the Gauss-Newton matrix of a softmax classifier, summed over examples.

    ``J_nᵀ (diag p - p pᵀ) J_n = Σ_c p_c (J_c - J̄)(J_c - J̄)ᵀ`` with ``J̄ = Σ_c p_c J_c``.

    Args:
        jacobian: Of the logits, ``[N, C, k]``.
        probabilities: ``[N, C]``.

    Returns:
        ``[N * C, k]``.
    """
    mean = torch.einsum("nc,nck->nk", probabilities, jacobian)
    return (probabilities.sqrt()[:, :, None] * (jacobian - mean[:, None])).flatten(0, 1)


def dense_solve(hessian: Tensor, vectors: Tensor, *, damping: float) -> Tensor:
    """``(H + λI)⁻¹ v`` for every row ``v``, by Cholesky.

    Args:
        hessian: ``[k, k]``, symmetric and not negative.
        vectors: ``[Q, k]``.
        damping: λ itself, above 0.

    Raises:
        NumericalError: The damped matrix is not positive definite.
    """
    damped = hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed):
        raise NumericalError(
            f"A curvature of {len(hessian)} coordinates with damping {damping:.3g} is not positive "
            "definite. Use float64, or a larger damping."
        )
    return torch.cholesky_solve(vectors.T, factor).T


def low_rank_solve(rows: Tensor, vectors: Tensor, *, damping: float) -> Tensor:
    """``(RᵀR / n + λI)⁻¹ v`` without a ``k × k`` array.

    ``(RᵀR / n + λI)⁻¹ = (I - Rᵀ (R Rᵀ + nλI)⁻¹ R) / λ``.

    Args:
        rows: ``R [n, k]``, float64.
        vectors: ``[Q, k]``.
        damping: λ itself, above 0.

    Raises:
        NumericalError: As `dense_solve`.
    """
    n = len(rows)
    inner = dense_solve(rows @ rows.T, vectors @ rows.T, damping=n * damping)  # [Q, n]
    return (vectors - inner @ rows) / damping


def mean_eigenvalue(rows: Tensor) -> float:
    """Mean of the positive eigenvalues of ``RᵀR / n``: what a damping is a fraction of.

    The mean over all ``k`` coordinates would shrink as a model grows while the spectrum that the
    examples show stays as it is.
    """
    values = torch.linalg.eigvalsh(rows @ rows.T / len(rows))
    positive = values[values > values[-1] * 1e-12]
    return float(positive.mean()) if len(positive) else 0.0


def low_rank_product(rows: Tensor) -> Product:
    """``v ↦ RᵀR v / n``."""
    return lambda vectors: (vectors @ rows.T) @ rows / len(rows)


def sampled_product(rows: Tensor, *, batch: int, seed: int) -> Product:
    """The same with a new random batch of the rows at every call, as LiSSA was meant to be used."""
    generator = torch.Generator().manual_seed(seed)

    def product(vectors: Tensor) -> Tensor:
        chosen = rows[torch.randperm(len(rows), generator=generator)[:batch]]
        return (vectors @ chosen.T) @ chosen / len(chosen)

    return product


def conjugate_gradients(
    product: Product,
    vectors: Tensor,
    *,
    damping: float,
    iterations: int,
    tolerance: float = 1e-10,
) -> Tensor:
    """``(H + λI)⁻¹ v`` for every row ``v`` by conjugate gradients.

    Args:
        product: ``v ↦ Hv``, the same at every call.
        vectors: ``[Q, k]``.
        damping: λ itself, above 0.
        iterations: At most.
        tolerance: A row whose residual has fallen to this share of its ``v`` is left as it is.
    """
    solution = torch.zeros_like(vectors)
    residual = vectors.clone()
    direction = residual
    energy = residual.square().sum(dim=1)  # [Q]
    goal = tolerance**2 * energy
    for _ in range(iterations):
        active = energy > goal
        if not active.any():
            break
        image = product(direction) + damping * direction
        curvature = (direction * image).sum(dim=1)
        step = torch.where(active, energy / curvature.clamp(min=1e-300), 0.0)[:, None]
        solution = solution + step * direction
        residual = residual - step * image
        following = residual.square().sum(dim=1)
        turn = torch.where(active, following / energy.clamp(min=1e-300), 0.0)[:, None]
        direction = residual + turn * direction
        energy = torch.where(active, following, energy)
    return solution


def lissa(
    product: Product, vectors: Tensor, *, damping: float, scale: float, iterations: int
) -> Tensor:
    """``(H + λI)⁻¹ v`` for every row ``v`` by LiSSA (Agarwal et al. 2017): a Neumann series.

    ``x ← v + x - (H + λI) x / s`` converges to ``s (H + λI)⁻¹ v`` where ``s`` is above half of the
    largest eigenvalue, at a rate of ``1 - λ/s`` in the flattest direction: thousands of steps for
    a damping worth having. `conjugate_gradients` needs far fewer; this is here to compare with.

    Args:
        product: ``v ↦ Hv``; it may draw another batch of examples at every call.
        vectors: ``[Q, k]``.
        damping: λ itself.
        scale: ``s``; the largest eigenvalue of ``H + λI`` is safe.
        iterations: Steps.

    Raises:
        NumericalError: It diverges.
    """
    state = vectors.clone()
    limit = 1e6 * scale / damping * float(vectors.norm())
    for step in range(iterations):
        state = vectors + state - (product(state) + damping * state) / scale
        if not float(state.norm()) <= limit:  # also true of NaN
            raise NumericalError(
                f"LiSSA diverges after {step + 1} steps with scale {scale:.3g}. Give a scale above "
                "the largest eigenvalue of the curvature of any one batch."
            )
    return state / scale
