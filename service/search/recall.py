"""What a search that may miss rows does miss, measured on the index's own rows as queries.

A row is the gradient of a real passage, so its neighbours are those that a real question has. Each
query is kept from finding itself.
"""

from collections.abc import Sequence

import numpy as np

from service.search.backend import Found, Search, Sought
from service.search.stored import StoredRows

QUERIES = 64
_BATCH = 16


def own_queries(stored: StoredRows, *, count: int = QUERIES, seed: int = 0) -> np.ndarray:
    """Rows that serve as queries, drawn uniformly; sorted."""
    drawn = np.random.default_rng(seed).choice(stored.rows, min(count, stored.rows), replace=False)
    return np.sort(drawn)


def best_by(search: Search, stored: StoredRows, queries: np.ndarray, k: int) -> list[np.ndarray]:
    """The ``k`` best rows on either side of each query, itself left out: ``[2k]`` each."""
    out = []
    for first in range(0, len(queries), _BATCH):
        rows = queries[first : first + _BATCH]
        sought = [Sought(vector, k + 1) for vector in stored.take(rows)]
        out += [_without(row, f, k) for row, f in zip(rows, search.search(sought), strict=True)]
    return out


def recall(truth: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Share of the true rows that were found, over all queries and both sides."""
    hits = sum(len(np.intersect1d(t, f)) for t, f in zip(truth, found, strict=True))
    return hits / max(sum(len(np.unique(t)) for t in truth), 1)


def _without(row: int, found: Found, k: int) -> np.ndarray:
    sides = (found.proponents.rows, found.opponents.rows)
    # Offset, so that a row that is on both sides of a small index counts on each.
    return np.concatenate([side[side != row][:k] * 2 + number for number, side in enumerate(sides)])
