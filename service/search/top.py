"""The k best rows of a query, in an order that never changes."""

import numpy as np


def top_rows(scores: np.ndarray, k: int, eligible: np.ndarray | None = None) -> np.ndarray:
    """Rows of the ``k`` highest scores, best first; equal scores in the order of the rows.

    Args:
        scores: ``[N]``.
        k: How many; all where there are fewer.
        eligible: Only rows where this is True, ``[N]`` of bool; all rows when None.

    Returns:
        Row numbers, ``[min(k, eligible rows)]``.
    """
    rows = np.arange(len(scores)) if eligible is None else np.flatnonzero(eligible)
    if k == 0:
        return rows[:0]
    if k < len(rows):
        values = scores[rows]
        kth = np.partition(values, len(rows) - k)[len(rows) - k]
        above, level = rows[values > kth], rows[values == kth]
        rows = np.concatenate([above, level[: k - len(above)]])
    return rows[np.lexsort((rows, -scores[rows]))]
