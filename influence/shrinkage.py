"""Damping picked from held-out vectors: the likelihood of what the covariance has not seen.

Adding ``μI`` to a covariance ``C`` fitted on a sample shrinks it toward a multiple of the identity
(Ledoit and Wolf 2004, up to a scale). Too little of it trusts directions for their luck in the
sample, too much forgets what the sample knows. So ``C`` is fitted on one half of the sample, and of
a few dampings that one is picked under which the *other* half is most likely.

Influence ranks by cosines, and the norms of gradients have so heavy a tail that a few passages
would decide a Gaussian likelihood. Only directions are therefore judged, by the angular central
Gaussian (Tyler 1987): for ``v`` of ``D`` numbers and ``Σ = C + μI``, twice the negative
log-likelihood of ``v / ‖v‖`` is, up to a constant,

    log det Σ + D log(vᵀ Σ⁻¹ v),

which neither a scale of ``Σ`` nor one of ``v`` changes. No label and no retraining is needed. It
judges how well curvature is *known*; whether a model rewards more damping than that (because it is
not convex, say) only a measurement like the linear datamodeling score can tell.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from influence.errors import InvalidInput
from influence.whitening import LowRankWhitening

LAYER_GRID = (1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
JOINT_GRID = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, math.inf)
FEWEST = 8  # vectors; halves of fewer say nothing

Losses = Callable[[Tensor, Tensor], Tensor]


def diagonal_losses(eigenvalues: Tensor, held_out: Tensor, grid: Sequence[float]) -> Tensor:
    """Mean loss of held-out vectors under ``diag(λ) + c λ̄ I``, for each ``c``.

    Args:
        eigenvalues: ``λ``, ``[K]``, not negative.
        held_out: ``[m, K]``; vectors that are 0 have no direction and are passed over.
        grid: Dampings ``c``.

    Returns:
        ``[len(grid)]`` float64.
    """
    squares = _with_direction(held_out).double().square()
    mean = float(eigenvalues.mean())
    if mean <= 0 or not len(squares):  # nothing to judge
        return torch.zeros(len(grid), dtype=torch.float64)
    fractions = torch.tensor(grid, dtype=torch.float64, device=eigenvalues.device)
    damped = eigenvalues.double() + mean * fractions[:, None]  # [C, K]
    log_quadratic = (squares @ damped.reciprocal().T).log().mean(dim=0)
    return (damped.log().sum(dim=1) + len(eigenvalues) * log_quadratic).cpu()


def low_rank_losses(fitted: LowRankWhitening, held_out: Tensor, grid: Sequence[float]) -> Tensor:
    """The same under ``C + c · mean(s) I`` of a low-rank covariance; infinity is the identity."""
    vectors = _with_direction(held_out).double()
    values = fitted.eigenvalues.to(vectors.device)
    if not len(values) or not len(vectors):
        return torch.zeros(len(grid), dtype=torch.float64)
    dims = vectors.shape[1]
    energy = vectors.square().sum(dim=1)  # [m]
    inside = (vectors @ fitted.vectors.double()).square()  # [m, n]
    outside = (energy - inside.sum(dim=1)).clamp(min=0)
    losses = []
    for c in grid:
        if math.isinf(c):
            losses.append(dims * energy.log().mean())
            continue
        mu = c * values.mean()
        log_det = (values + mu).log().sum() + (dims - len(values)) * mu.log()
        quadratic = (inside / (values + mu)).sum(dim=1) + outside / mu
        losses.append(log_det + dims * quadratic.log().mean())
    return torch.stack(losses).cpu()


def layer_losses(rows: Tensor) -> Tensor:
    """EK-FAC of one layer over `LAYER_GRID`: ``λ`` from one half of ``rows [n, K]``, both ways."""
    return _both_ways(
        rows,
        lambda fit, held_out: diagonal_losses(
            fit.double().square().mean(dim=0), held_out, LAYER_GRID
        ),
    )


def raw_losses(rows: Tensor) -> Tensor:
    """The same for the full covariance of one layer in low rank."""
    return _low_rank_both_ways(rows, LAYER_GRID)


def joint_losses(rows: Tensor) -> Tensor:
    """The same for the covariance across layers, over `JOINT_GRID`."""
    return _low_rank_both_ways(rows, JOINT_GRID)


def pick(losses: Tensor, grid: Sequence[float]) -> float:
    """The damping of the smallest loss; of equal ones the largest."""
    best = losses.min()
    return max(c for c, loss in zip(grid, losses, strict=True) if loss <= best)


def _low_rank_both_ways(rows: Tensor, grid: Sequence[float]) -> Tensor:
    return _both_ways(
        rows,
        lambda fit, held_out: low_rank_losses(
            LowRankWhitening.fit(fit, damping=1.0), held_out, grid
        ),
    )


def _both_ways(rows: Tensor, losses: Losses) -> Tensor:
    """Every second vector is held out, then the others."""
    if len(rows) < FEWEST:
        raise InvalidInput(
            f"A damping cannot be picked from {len(rows)} passages; at least {FEWEST} are needed. "
            "Give the damping as a number, or more passages (--fit-passages, a larger corpus)."
        )
    return losses(rows[::2], rows[1::2]) + losses(rows[1::2], rows[::2])


def _with_direction(vectors: Tensor) -> Tensor:
    return vectors[vectors.abs().amax(dim=1) > 0]
