"""Brittleness (Ilyas et al. 2022, arXiv 2202.00622): does an answer break without its proponents?

The first ``k`` proponents of a query are removed, a model is trained on what is left, and the query
is measured again. The more it loses, and the more queries flip, against removing as many examples
at random, the better a ranking found what the answer rests on. A score may order subsets well (LDS)
and still miss this, since only its head counts here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.lds import Interval, bootstrap

# Which examples are kept [S, N] bool, all of one size -> measured on models trained on them [S, Q].
Retrain = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Drop:
    """What removing the first ``k`` of a ranking did.

    Attributes:
        ranking: Its name.
        k: Examples removed for each query.
        drop: Of the query's measurement, mean over the queries.
        flips: Share of the queries whose measurement was positive and is no longer.
    """

    ranking: str
    k: int
    drop: Interval
    flips: float


def without_first(scores: np.ndarray, k: int) -> np.ndarray:
    """What is left for each query without its first ``k`` examples: ``[Q, N]`` -> bool ``[Q, N]``.

    Of equal scores the first in the corpus goes first.

    Raises:
        ValueError: Nothing would be left.
    """
    queries, examples = scores.shape
    if not 0 < k < examples:
        raise ValueError(f"{k} of {examples} examples cannot be removed; one at least stays.")
    kept = np.ones((queries, examples), dtype=bool)
    first = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.put_along_axis(kept, first, values=False, axis=1)
    return kept


def brittleness(
    rankings: Mapping[str, np.ndarray], ks: Sequence[int], retrain: Retrain, full: np.ndarray
) -> list[Drop]:
    """The curve of every ranking over ``k``.

    Args:
        rankings: Scores of every example for every query, ``[Q, N]`` each; positive: proponent.
        ks: How many are removed.
        retrain: Trains and measures; higher is better, and above 0 the query is answered rightly.
        full: Measured on models trained on everything, ``[Q]``.

    Returns:
        For each ranking and ``k``, in that order.
    """
    curve = []
    for name, scores in rankings.items():
        for k in ks:
            measured = retrain(without_first(scores, k))  # [Q, Q]: of each model its own query
            own = np.diagonal(measured)
            flipped = (full > 0) & (own <= 0)
            share = flipped.sum() / max((full > 0).sum(), 1)
            curve.append(Drop(name, k, bootstrap(full - own), float(share)))
    return curve
