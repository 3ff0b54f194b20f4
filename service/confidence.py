"""Does a hit stand out, or is it merely the first of many that mean nothing?

The robust z-score of a hit (`influence.noise`) becomes a probability: that the best of ``N``
unrelated rows stays below ``z``.

**Without a calibration** it is read off the tail of the query's own scores,

    confidence(z) = (1 - P(Z > z))^N.

**With one**, the index knows the best ``z`` of ``n`` answers that come from no document of it. A
Gumbel distribution, which is where the best of many tends to, is fitted to them; but some answers
have longer tails than it, so where the answers themselves are to the contrary they are believed:

    confidence(z) = min(Gumbel(z), 1 - (1 + #{null ≥ z}) / (n + 1))      up to the largest of them.

The second is the conformal bound: whatever the distribution, a null answer exceeds it one time in
twenty at a confidence of .95. Beyond the largest the Gumbel speaks alone.
"""

from collections.abc import Sequence

import numpy as np

from influence.noise import Spread

STANDS_OUT = 0.95  # confidence from which a hit stands out
MIN_CALIBRATION = 20  # null answers below which no z has a conformal confidence of .95

_EULER_GAMMA = 0.57721566


def confidence(z: np.ndarray, spread: Spread, null_best_z: Sequence[float] = ()) -> np.ndarray:
    """Probability that the best unrelated row stays below each ``z``; in [0, 1], float64.

    Args:
        z: Robust z-scores of hits.
        spread: Of the same query.
        null_best_z: The best z of answers that come from no document of this index; fewer than 20
            are not used.
    """
    z = np.asarray(z, dtype=np.float64)
    if len(null_best_z) >= MIN_CALIBRATION:
        return _calibrated(z, np.sort(np.asarray(null_best_z, dtype=np.float64)))
    exponent = np.minimum(-(z - spread.tail_start) / spread.tail_scale, 2.0)
    above = np.minimum(0.1 * np.exp(exponent), 1 - 1e-12)
    return np.exp(spread.rows * np.log1p(-above))


def _calibrated(z: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    location, scale = _gumbel(ordered)
    fitted = np.exp(-np.exp(np.minimum(-(z - location) / scale, 700)))
    n = len(ordered)
    not_below = n - np.searchsorted(ordered, z, side="left")
    conformal = 1 - (1 + not_below) / (n + 1)
    return np.where(not_below > 0, np.minimum(fitted, conformal), fitted)


def _gumbel(ordered: np.ndarray) -> tuple[float, float]:
    """Location and scale from the first two L-moments of a sorted sample."""
    n = len(ordered)
    mean = ordered.mean()
    second = 2 * (np.arange(n) / (n - 1) * ordered).mean() - mean
    # Equal values (second = 0) would make a step of it; a hundredth of a spread is no difference.
    scale = max(float(second) / np.log(2), 0.01)
    return float(mean) - _EULER_GAMMA * scale, scale
