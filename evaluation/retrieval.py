"""Fact tracing: is the document that states the answer among the first?"""

from collections.abc import Sequence

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


def by_document(scores: np.ndarray, places: np.ndarray, documents: int) -> np.ndarray:
    """Scores of documents, each that of its best passage.

    Args:
        scores: Of passages, ``[Q, N]``.
        places: The document of each passage, ``[N]``.
        documents: ``M``.

    Returns:
        ``[Q, M]``.
    """
    best = np.full((len(scores), documents), -np.inf)
    np.maximum.at(best.T, places, scores.T)
    return best


def ranks_of_any(scores: np.ndarray, wanted: Sequence[Sequence[int]]) -> np.ndarray:
    """Rank of the first of several wanted documents, ``[Q]``; equal scores count against it.

    Args:
        scores: ``[Q, M]``.
        wanted: For each query the documents that would do, at least one.
    """
    ranks = np.empty(len(scores), dtype=np.int64)
    for row, names in enumerate(wanted):
        others = np.ones(scores.shape[1], dtype=bool)
        others[list(names)] = False
        ranks[row] = 1 + int((scores[row, others] >= scores[row, list(names)].max()).sum())
    return ranks
