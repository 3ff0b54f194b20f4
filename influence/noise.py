"""How far one query's scores spread, and how far its best row lies above them.

Any query has a best row. It says something only if it lies above what the best of ``N`` unrelated
rows would reach, and that is judged from the query's own scores over the whole index, nearly all of
which are unrelated. With ``s`` the cosines of one query with all ``N`` rows:

    z = (s - median(s)) / σ,      σ = max(1.4826 · median|s - median(s)|, 1/√D)

Median and absolute deviations are blind to the few rows that are related. ``1/√D`` is the spread of
the cosine of unrelated vectors of ``D`` isotropic numbers, and what a sketch to ``D`` numbers adds:
no difference below it means anything, however narrow the scores happen to lie.

The tail of unrelated scores falls exponentially or faster, at a rate read off the same scores:

    P(Z > z) = 0.1 · exp(-(z - z₉₀)/β),      β = (z₉₈ - z₉₀) / ln 5 · (1 + 10/N)

with ``z₉₀`` and ``β`` never below those of the normal distribution (1.28 and 0.48), which falls
faster, and ``10/N`` for what quantiles of few rows are worth.

A search that does not score every row takes the same from ``S`` rows drawn uniformly, and ``10/S``
instead. For normal scores the asymptotic standard errors, in units of σ, are 1.25/√S of the median,
1.17/√S of σ itself, and relatively 3.4/√S of β: with S = 1,024 a z of 5 is known to ±0.19, with
4,096 to ±0.09.

The indexer measures null queries with it, the service the answers of people. For opponents the
scores are taken with the other sign. Importing this module loads neither torch nor faiss.
"""

from dataclasses import dataclass

import numpy as np

_SAMPLE = 200_000  # rows that medians and quantiles are taken from, in equal steps; all if fewer
_NORMAL_Z90 = 1.2816
_NORMAL_BETA = 0.4800  # (2.0537 - 1.2816) / ln 5


@dataclass(frozen=True)
class Spread:
    """The distribution of one query's scores over an index.

    Attributes:
        centre: Their median.
        scale: σ.
        tail_start: ``z₉₀``.
        tail_scale: ``β``.
        rows: ``N``.
    """

    centre: float
    scale: float
    tail_start: float
    tail_scale: float
    rows: int

    def z(self, scores: np.ndarray) -> np.ndarray:
        """Robust z-scores, float64."""
        return (scores.astype(np.float64) - self.centre) / self.scale


def spread_of(scores: np.ndarray, *, dims: int, rows: int | None = None) -> Spread:
    """Measure the spread of a query's scores.

    Args:
        scores: Cosines with every row of the index, ``[N]``, or with ``S`` rows drawn uniformly
            from it; negated to judge opponents.
        dims: ``D``, the length of the vectors.
        rows: ``N``; as many as there are scores by default.

    Raises:
        ValueError: There is no score.
    """
    drawn = len(scores)
    if drawn == 0:
        raise ValueError("there are no scores; an index has at least one row.")
    sample = scores[:: -(-drawn // _SAMPLE)].astype(np.float64)
    # Downwards: of fewer than 50 rows the .98 quantile is the second best, never the best itself.
    at90, at98 = (int(quantile * (len(sample) - 1)) for quantile in (0.9, 0.98))
    centre, ordered = _median(sample, at90, at98)
    deviation, _ = _median(np.abs(sample - centre))
    scale = max(1.4826 * deviation, dims**-0.5)
    z90, z98 = ((ordered[at] - centre) / scale for at in (at90, at98))
    beta = max(float(z98 - z90) / np.log(5), _NORMAL_BETA) * (1 + 10 / drawn)
    return Spread(centre, scale, max(float(z90), _NORMAL_Z90), beta, rows or drawn)


def _median(sample: np.ndarray, *further: int) -> tuple[float, np.ndarray]:
    """The median, and the sample with its middle and these further places as if it were sorted.

    One selection for all: numpy's median and quantile take three, with checks that cost more than
    the selection where scores are few.
    """
    middle = [(len(sample) - 1) // 2, len(sample) // 2]
    ordered = np.partition(sample, [*middle, *further])
    return float(ordered[middle].mean()), ordered


def best_z(scores: np.ndarray, *, dims: int) -> float:
    """The best robust z-score of a query, ``scores [N]``; what a calibration collects."""
    return float(spread_of(scores, dims=dims).z(scores.max(keepdims=True))[0])
