"""Linear datamodeling score (Park et al. 2023, arXiv 2303.14186): do scores predict retraining?

A model is retrained on random subsets of its training examples, and something is measured on each
retrained model for every query, such as the log-likelihood of its response. If influence is right
and adds up, the scores summed over a subset rank the subsets as the measurements do:

    LDS(q) = Spearman over subsets s of ( Σ_{i in s} score[q, i],  measured[s, q] )

1 is a perfect ranking, 0 is none, −1 says that the sign is wrong. The measurement is one that
training raises (a log-likelihood, a margin), so that proponents have positive scores.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval.

    Attributes:
        mean: Over all queries.
        low: Lower end.
        high: Upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the distance between the ends."""
        return (self.high - self.low) / 2


def spearman(a: Array, b: Array) -> Array:
    """Rank correlation of the columns of ``a [S, Q]`` with those of ``b [S, Q]``: ``[Q]``.

    Equal values share their mean rank. A column without any difference in it predicts nothing, so
    its correlation is 0.

    Raises:
        ValueError: Other shapes, fewer than 2 rows, or a value that is not finite.
    """
    if a.shape != b.shape or a.ndim != 2 or len(a) < 2:
        raise ValueError(
            f"columns to correlate have shapes {a.shape} and {b.shape}; both must be [S, Q] with "
            "at least 2 rows."
        )
    for name, values in (("first", a), ("second", b)):
        if not np.isfinite(values).all():
            raise ValueError(f"the {name} array is not finite; leave out what diverged.")
    x, y = _centred_ranks(a), _centred_ranks(b)
    norms = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
    return np.where(norms > 0, (x * y).sum(axis=0) / np.where(norms > 0, norms, 1), 0.0)


def _centred_ranks(values: Array) -> Array:
    """Ranks within each column, mean 0; ties share the mean of their ranks."""
    order = values.argsort(axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    place = np.arange(len(values))[:, None]
    differs = ordered[1:] != ordered[:-1]
    ends = np.ones((1, values.shape[1]), dtype=bool)
    first = np.maximum.accumulate(np.where(np.vstack([ends, differs]), place, 0))
    last = np.where(np.vstack([differs, ends]), place, len(values))
    last = np.minimum.accumulate(last[::-1])[::-1]
    ranks = np.empty(values.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (first + last) / 2, axis=0)
    return ranks - ranks.mean(axis=0)


def lds(scores: Array, subsets: NDArray[np.bool_], outputs: Array) -> Array:
    """Linear datamodeling score of every query.

    Args:
        scores: Influence of each training example on each query, ``[Q, N]``, positive where
            training on it raises the measurement.
        subsets: Which examples each retrained model saw, ``[S, N]``.
        outputs: What was measured on each retrained model, ``[S, Q]``.

    Returns:
        ``[Q]``, each in [-1, 1].

    Raises:
        ValueError: Shapes that do not belong together, or a value that is not finite.
    """
    expected = (subsets.shape[0], scores.shape[0])
    if scores.shape[1] != subsets.shape[1] or outputs.shape != expected:
        raise ValueError(
            f"scores {scores.shape}, subsets {subsets.shape} and outputs {outputs.shape} do not "
            "belong together; they must be [Q, N], [S, N] and [S, Q]."
        )
    return spearman(subsets.astype(np.float64) @ scores.T.astype(np.float64), outputs)


def bootstrap(
    values: Array, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Mean over queries ``[Q]`` and its percentile interval over resampled queries.

    The interval is that of other queries on the same retrained models; it says nothing of other
    subsets or other trainings.
    """
    means = values[_resampled(len(values), resamples, seed)].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def bootstrap_ratio(
    values: Array,
    reference: Array,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of ``values [Q]`` as a share of the mean of ``reference [Q]``, on the same queries.

    Both means are taken over the same resampled queries, so what makes a query hard for every
    method cancels and the interval is narrower than those of the means suggest.
    """
    chosen = _resampled(len(values), resamples, seed)
    ratios = values[chosen].mean(axis=1) / reference[chosen].mean(axis=1)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean() / reference.mean()), float(low), float(high))


def _resampled(count: int, resamples: int, seed: int) -> NDArray[np.int64]:
    if count == 0:
        raise ValueError("there are 0 queries; a mean needs at least 1.")
    return np.random.default_rng(seed).integers(count, size=(resamples, count))


def half_subsets(examples: int, *, count: int, fraction: float = 0.5, seed: int) -> NDArray:
    """Random subsets of one size, ``[S, N]`` bool; each model then takes as many steps.

    Args:
        examples: ``N``.
        count: ``S``.
        fraction: Share of the examples in each subset.
        seed: Same seed, same subsets.
    """
    kept = round(fraction * examples)
    if not 0 < kept < examples:
        raise ValueError(f"{fraction} of {examples} examples is {kept}; nothing would be left out.")
    order = np.random.default_rng(seed).random((count, examples)).argsort(axis=1)
    subsets = np.zeros((count, examples), dtype=bool)
    np.put_along_axis(subsets, order[:, :kept], values=True, axis=1)
    return subsets
