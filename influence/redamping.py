"""Another damping for vectors that are stored already, without another pass of the model.

A stored vector is ``z = J W G``: gradient coordinates ``G``, the whitening ``W`` of each layer, and
the joint one ``J`` across layers. Both are invertible, so for other dampings

    z' = J' W' G = J' W' W⁻¹ J⁻¹ z.

Under a new ``c₂`` alone, ``W`` cancels and ``J' J⁻¹`` is the identity plus low rank, sketched or
not. Under a new ``c`` the coordinates themselves must be there: a sketch has added many of them up,
and no rescaling takes a sum apart again. The joint covariance ``C = E[u uᵀ]`` of ``u = W G`` then
becomes ``T C Tᵀ`` with ``T = W' W⁻¹``, known exactly since ``C = U diag(s) Uᵀ`` is.

Stored unit vectors are rounded to fp16, which is off by ``2⁻¹¹`` of each number at most. Rescaling
stretches that error like anything else: in a direction that gains ``g`` times what the vector
itself gains, the error is ``g`` times as large. `rounding` measures it.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from influence.basis import Basis
from influence.errors import InvalidInput
from influence.whitening import LowRankWhitening

FP16_ROUNDING = 2.0**-11  # of a number, at most


def redamped_basis(basis: Basis, *, damping: float, joint_damping: float) -> Basis:
    """The basis that the same sample gives with other dampings.

    Raises:
        InvalidInput: ``damping`` differs and the vectors are sketched, or the joint covariance that
            a finite ``joint_damping`` needs was not kept.
    """
    if damping != basis.damping and not basis.sketch.is_identity:
        raise InvalidInput(
            f"The index adds {basis.coordinates} coordinates up to {basis.vector_dims} numbers, so "
            f"its damping of {basis.damping:g} cannot be taken out of them again. Change the joint "
            f"damping alone, or build the index again with `whence index --damping {damping:g}`."
        )
    if basis.joint is None:
        if not math.isinf(joint_damping):
            raise InvalidInput(
                "The index keeps no joint covariance, so a joint damping of "
                f"{joint_damping:g} cannot be applied. Build the index again."
            )
        return replace(basis, damping=damping)
    joint = replace(basis.joint, damping=joint_damping)
    redamped = replace(basis, damping=damping, joint=joint)
    if damping != basis.damping and len(joint.eigenvalues):
        rows = (joint.vectors.double() * joint.eigenvalues.to(joint.vectors.device).sqrt()).T
        changed = redamped.layer_whitening.forward(basis.layer_whitening.inverse(rows))
        refitted = LowRankWhitening.fit(changed * len(rows) ** 0.5, damping=1.0)
        joint = replace(refitted, vectors=refitted.vectors.float(), damping=joint_damping)
    return replace(redamped, joint=joint)


def rescaled(vectors: Tensor, old: Basis, new: Basis) -> Tensor:
    """Vectors ``[B, D]`` of one basis, as `redamped_basis` of it has them."""
    if old.damping == new.damping:
        if old.joint is None or new.joint is None:
            return vectors
        return old.joint.redamped(vectors, new.joint)
    before = vectors if old.joint is None else old.joint.inverse(vectors)
    after = new.layer_whitening.forward(old.layer_whitening.inverse(before))
    return after if new.joint is None else new.joint.forward(after)


def rounding(units: Tensor, old: Basis, new: Basis, *, seed: int) -> float:
    """Share of a rescaled vector that is rounding error, root mean square over ``units [B, D]``.

    The error of the stored numbers is drawn as it is distributed, rescaled, and compared; the
    rounding of the new numbers comes on top.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(units.shape, generator=generator).to(units)
    error = rescaled(units * FP16_ROUNDING * (2 * drawn - 1), old, new).norm(dim=1)
    stored = error / rescaled(units, old, new).norm(dim=1)
    anew = FP16_ROUNDING / 3**0.5
    return float((stored.square() + anew**2).mean().sqrt())
