"""From the cosines of a query with every row to what was found.

With all cosines at hand, proponents and opponents come out of one scan, a filter is a mask, a
ranking by influence is a product with the norms, and the spread of the scores is known. Where the
cosines are off by at most ``error``, the rows whose score may reach the k-th best,

    score + error · weight ≥ k-th highest (score - error · weight),

are compared again with their stored vectors, so the ranking is exact all the same.
"""

import numpy as np

from service.search.backend import NO_ROWS, Found, Side, Sought
from service.search.stored import StoredRows
from service.search.top import top_rows


def found_by_scan(
    query: Sought,
    cosines: np.ndarray,
    norms: np.ndarray,
    stored: StoredRows,
    *,
    error: float = 0.0,
    rescored: int | None = None,
) -> Found:
    """Rank rows by cosines that are exact, or nearly so.

    Args:
        query: What is sought.
        cosines: With every row, ``[N]`` float32.
        norms: Of the rows, ``[N]`` float32.
        stored: The rows themselves.
        error: Most by which a cosine may be off; 0: those given are taken as they are.
        rescored: Compare so many of the best again, whatever the error.
    """
    weights = norms if query.weighted else np.float32(1)

    def side(sign: int, k: int, weights: np.ndarray | np.float32) -> Side:
        scores = np.float32(sign) * cosines * weights
        if rescored is not None:
            rows = top_rows(scores, max(k, rescored), query.allowed)
        elif error == 0:
            rows = top_rows(scores, k, query.allowed)
            return Side(rows, cosines[rows])
        else:
            rows = _may_be_best(scores, np.float32(error) * weights, k, query.allowed)
        exact = stored.cosines(rows, query.vector)
        weight = weights[rows] if query.weighted and isinstance(weights, np.ndarray) else 1
        best = top_rows(np.float32(sign) * exact * weight, k)
        return Side(rows[best], exact[best])

    proponents = side(1, query.k, weights)
    highest = side(1, 1, np.float32(1)) if query.weighted or query.k == 0 else proponents
    return Found(
        proponents=proponents,
        opponents=side(-1, query.k, weights) if query.opponents else NO_ROWS,
        highest=float(highest.cosines[0]) if len(highest.cosines) else -1.0,
        sample=cosines,
    )


def _may_be_best(
    scores: np.ndarray, margin: np.ndarray | np.float32, k: int, allowed: np.ndarray | None
) -> np.ndarray:
    """Rows that may be among the ``k`` best if every score may be off by its margin, sorted."""
    surely = top_rows(scores - margin, k, allowed)
    if len(surely) == 0:
        return surely
    reach = (scores + margin) >= (scores - margin)[surely[-1]]
    return np.flatnonzero(reach if allowed is None else reach & allowed)
