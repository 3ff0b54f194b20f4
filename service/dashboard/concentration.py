"""How unequal worth is spread: the Lorenz curve (Lorenz 1905) and the Gini coefficient (Gini 1912).

Both want amounts that are not negative; a total below zero counts as nothing.
"""

from collections.abc import Sequence

import numpy as np


def lorenz(amounts: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Part of the holders, poorest first, and what they have of the whole; both ``[n + 1]``."""
    each = np.sort(np.maximum(np.asarray(amounts, dtype=np.float64), 0))
    held = np.concatenate([[0.0], np.cumsum(each)])
    holders = np.linspace(0, 1, len(each) + 1) if len(each) else np.zeros(1)
    return holders, held / held[-1] if held[-1] > 0 else holders.copy()


def gini(amounts: Sequence[float]) -> float:
    """``Σ_i Σ_j |x_i - x_j| / (2 n Σ_i x_i)``: 0 where all have the same, near 1 where one has all.

    0 of nothing.
    """
    each = np.sort(np.maximum(np.asarray(amounts, dtype=np.float64), 0))
    whole = each.sum()
    if whole <= 0:
        return 0.0
    ranks = np.arange(1, len(each) + 1)
    return float(((2 * ranks - len(each) - 1) * each).sum() / (len(each) * whole))
