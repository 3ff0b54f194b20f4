"""Fact tracing: is the document that states the answer among the first?"""

import numpy as np


def ranks_of(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rank of the wanted document for each query, 1 is first; of equal scores the worst.

    Args:
        scores: ``[Q, N]``.
        wanted: Index of the wanted document, ``[Q]``.

    Returns:
        ``[Q]``. A score that is the same for all documents ranks every one last.
    """
    own = np.take_along_axis(scores, wanted[:, None], axis=1)
    return (scores >= own).sum(axis=1)


def recall_at(scores: np.ndarray, wanted: np.ndarray, *, k: int = 1) -> np.ndarray:
    """Whether the wanted document is among the first ``k``, ``[Q]`` of 0 and 1."""
    return (ranks_of(scores, wanted) <= k).astype(np.float64)


def reciprocal_ranks(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """``1 / rank`` of the wanted document, ``[Q]``; their mean is the MRR."""
    return 1 / ranks_of(scores, wanted)
