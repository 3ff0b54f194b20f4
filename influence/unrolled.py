"""SOURCE: influence through training as it went (Bae et al. 2024, arXiv 2405.12186).

Training is cut into L segments. In one eigenbasis that all of them share, the curvature ``σ_ℓ`` of
a segment is diagonal, and with ``s_ℓ`` the sum of the learning rates of its steps (``η_ℓ K_ℓ``)

    w_ℓ = exp(-Σ_{ℓ'>ℓ} s_ℓ' σ_ℓ') · (1 - exp(-s_ℓ σ_ℓ)) / σ_ℓ

is what is left at the end of training of a unit of gradient that was followed all through segment
ℓ: what the segment itself made of it, then forgotten along the curvature of the later ones. Hence

    score(q, z) = Σ_ℓ q · w_ℓ ḡ_ℓ(z)

with the mean gradient ``ḡ_ℓ(z)`` in the segment. The query is the same in each term, so the sum is
one vector a passage: with ``W = Σ_ℓ w_ℓ``, passages are ``z̃ = Σ_ℓ w_ℓ ḡ_ℓ / √W``, queries
``q̃ = √W q``, and ``q̃ · z̃`` is the score.

Limits: one segment and ``s σ → ∞`` gives ``W = 1/σ``, the influence function; ``s σ → 0`` gives
``W = s``, the gradient dot product. So training itself is the damping, and there is no other.

The formula is the flow of gradient descent, ``exp(-sσ)`` for ``(1 - ησ)^K``; it is off by about
``ησ/2`` of a coordinate's weight. Other optimisers change what ``s`` and ``σ`` are: heavy-ball
momentum β makes steps ``1/(1-β)`` times as long; a diagonal preconditioner makes ``s`` differ by
coordinate; weight decay is curvature (`with_weight_decay`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class UnrolledFactors:
    """What multiplies gradients in the shared eigenbasis.

    Attributes:
        query: ``√W [...]``.
        passages: ``w_ℓ / √W [L, ...]``; 0 where nothing of a coordinate is left.
    """

    query: Tensor
    passages: Tensor


def segment_weights(curvature: Tensor, lengths: Tensor) -> Tensor:
    """``w_ℓ`` of every segment and coordinate; see the module.

    Args:
        curvature: ``σ [L, ...]`` of the mean loss of an example, none below 0.
        lengths: ``s [L, ...]``, sums of learning rates, none below 0; its axes after the first are
            those of the curvature, or 1.

    Returns:
        ``[L, ...]`` float64, in units of a learning rate.

    Raises:
        ValueError: Other numbers of segments, or a value below 0 or not finite.
    """
    if curvature.shape[0] != lengths.shape[0]:
        raise ValueError(
            f"curvature is of {curvature.shape[0]} segments and lengths of {lengths.shape[0]}; "
            "both must be [L, ...]."
        )
    for name, values in (("curvature", curvature), ("lengths", lengths)):
        if not (torch.isfinite(values).all() and (values >= 0).all()):
            raise ValueError(f"{name} has values below 0 or not finite; SOURCE takes neither.")
    sigma = curvature.double()
    s = lengths.double().to(sigma.device)
    decay = s * sigma  # [L, ...]
    later = decay.flip(0).cumsum(0).flip(0) - decay
    return torch.exp(-later) * s * _mean_of_decay(decay)


def _mean_of_decay(x: Tensor) -> Tensor:
    """``(1 - exp(-x)) / x``, the mean of ``exp`` over ``[-x, 0]``; 1 at 0, with no cancellation."""
    safe = torch.where(x == 0, 1.0, x)
    return torch.where(x == 0, 1.0, -torch.expm1(-safe) / safe)


def unrolled_factors(curvature: Tensor, lengths: Tensor) -> UnrolledFactors:
    """The sum over segments as one inner product; arguments as of `segment_weights`."""
    weights = segment_weights(curvature, lengths)
    root = weights.sum(0).sqrt()
    passages = torch.where(root > 0, weights / root.clamp(min=1e-300), 0.0)
    return UnrolledFactors(root, passages)


def with_weight_decay(
    curvature: Tensor, decay: float, preconditioner: Tensor | None = None
) -> Tensor:
    """Curvature with that of weight decay in it.

    Added to the gradient (SGD), a decay ``d`` adds ``d`` to every eigenvalue. Taken off the weights
    beside a preconditioner ``P`` (AdamW), it shrinks them by ``η d`` a step, as a curvature of
    ``d / P`` would: the step is ``η P`` long.

    Args:
        curvature: ``σ [...]``.
        decay: ``d``.
        preconditioner: ``P [...]``, where the decay is taken off beside it.
    """
    if preconditioner is None:
        return curvature + decay
    return curvature + decay / preconditioner


def diagonal_in_basis(diagonal: Tensor, p_in: Tensor, p_out: Tensor) -> Tensor:
    """Diagonal of ``P D Pᵀ`` for a diagonal ``D`` over weights and ``P = P_out ⊗ P_in``.

    A preconditioner that is diagonal over weights, such as Adam's, is not so in an eigenbasis; its
    diagonal there is what SOURCE keeps of it.

    Args:
        diagonal: ``D [d_out, d_in]``.
        p_in: ``[r_in, d_in]``, orthonormal rows.
        p_out: ``[r_out, d_out]``, orthonormal rows.

    Returns:
        ``[r_out, r_in]`` float64.
    """
    return p_out.double().square() @ diagonal.double() @ p_in.double().square().T
