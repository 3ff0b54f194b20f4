"""Iterative solvers of ``(H + λI) x = v``: only the product ``v ↦ Hv`` is needed.

Full-size EK-FAC is Whence's own with ranks as large as the layers, nothing sketched and no joint
whitening, and an exact solve is a division in the curvature's eigenbasis (`evaluation.span`).

Letters: Q vectors to solve for, k coordinates.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from influence.errors import NumericalError

Product = Callable[[Tensor], Tensor]  # [Q, k] -> [Q, k]: Hv for every row v


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
