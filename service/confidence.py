"""Does a hit stand out, or is it merely the first of many that mean nothing?

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
faster, and ``10/N`` for what quantiles of few rows are worth. Then

    confidence(z) = (1 - P(Z > z))^N,

the probability that the best of ``N`` unrelated rows stays below ``z``. A calibrated index knows
the best ``z`` of answers that come from no document; a Gumbel distribution, which is where the best
of many tends to, is fitted to them and gives that probability directly.

For opponents the scores are taken with the other sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STANDS_OUT = 0.95  # confidence from which a hit stands out
MIN_CALIBRATION = 20  # null answers below which a fit to them is worth less than the scores' tail

_SAMPLE = 200_000  # rows that medians and quantiles are taken from, in equal steps; all if fewer
_NORMAL_Z90 = 1.2816
_NORMAL_BETA = 0.4800  # (2.0537 - 1.2816) / ln 5
_EULER_GAMMA = 0.57721566


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


def spread_of(scores: np.ndarray, *, dims: int) -> Spread:
    """Measure the spread of a query's scores.

    Args:
        scores: Cosines with every row of the index, ``[N]``; negated to judge opponents.
        dims: ``D``, the length of the vectors.

    Raises:
        ValueError: There is no score.
    """
    rows = len(scores)
    if rows == 0:
        raise ValueError("there are no scores; an index has at least one row.")
    sample = scores[:: -(-rows // _SAMPLE)].astype(np.float64)
    centre = float(np.median(sample))
    deviation = float(np.median(np.abs(sample - centre)))
    scale = max(1.4826 * deviation, dims**-0.5)
    # "lower": of fewer than 50 rows the .98 quantile is then the second best, never the best itself
    z90, z98 = (np.quantile(sample, [0.9, 0.98], method="lower") - centre) / scale
    beta = max(float(z98 - z90) / np.log(5), _NORMAL_BETA) * (1 + 10 / rows)
    return Spread(centre, scale, max(float(z90), _NORMAL_Z90), beta, rows)


def confidence(z: np.ndarray, spread: Spread, null_best_z: Sequence[float] = ()) -> np.ndarray:
    """Probability that the best unrelated row stays below each ``z``; in [0, 1], float64.

    Args:
        z: Robust z-scores of hits.
        spread: Of the same query.
        null_best_z: The best z of answers that come from no document of this index
            (`best_z`); fewer than 20 are not used.
    """
    z = np.asarray(z, dtype=np.float64)
    if len(null_best_z) >= MIN_CALIBRATION:
        location, scale = _gumbel(np.sort(np.asarray(null_best_z, dtype=np.float64)))
        return np.exp(-np.exp(np.minimum(-(z - location) / scale, 700)))
    exponent = np.minimum(-(z - spread.tail_start) / spread.tail_scale, 2.0)
    above = np.minimum(0.1 * np.exp(exponent), 1 - 1e-12)
    return np.exp(spread.rows * np.log1p(-above))


def best_z(scores: np.ndarray, *, dims: int) -> float:
    """The best robust z-score of a query, ``scores [N]``; what a calibration collects."""
    return float(spread_of(scores, dims=dims).z(scores.max(keepdims=True))[0])


def _gumbel(ordered: np.ndarray) -> tuple[float, float]:
    """Location and scale from the first two L-moments of a sorted sample."""
    n = len(ordered)
    mean = ordered.mean()
    second = 2 * (np.arange(n) / (n - 1) * ordered).mean() - mean
    # Equal values (second = 0) would make a step of it; a hundredth of a spread is no difference.
    scale = max(float(second) / np.log(2), 0.01)
    return float(mean) - _EULER_GAMMA * scale, scale
