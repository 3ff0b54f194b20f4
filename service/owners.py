"""What every owner's documents are worth for one answer: exact totals, no top-k cut.

Influence is linear in the passage, so the sum over an owner's passages is one inner product with
the sum of their vectors. An owner's *share* is its part of all positive totals,

    share(o) = max(t_o, 0) / Σ_p max(t_p, 0),

so shares add up to 1 and an owner whose documents spoke against the answer has none.
"""

import numpy as np

from influence.store import NO_OWNER, OwnerTotals
from service.schemas import OwnerShare


def owner_shares(query: np.ndarray, totals: OwnerTotals) -> tuple[OwnerShare, ...]:
    """Totals of all owners, highest first; equal ones in the order of the names.

    Args:
        query: The query's vector before normalisation, ``[D]``.
        totals: Summed vectors of the index.
    """
    influence = (totals.sums @ query.astype(totals.sums.dtype)).astype(np.float64)
    positive = np.maximum(influence, 0)
    shares = positive / max(positive.sum(), np.finfo(np.float64).tiny)
    order = np.lexsort((np.arange(len(influence)), -influence))
    return tuple(
        OwnerShare(
            owner=None if totals.names[o] == NO_OWNER else totals.names[o],
            influence=float(influence[o]),
            share=min(float(shares[o]), 1.0),
        )
        for o in order
    )
