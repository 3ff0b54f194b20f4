"""Search by candidates: something fast names rows that may be best, their vectors decide.

Whatever names them (`Nearest`: one-bit codes, a GPU) knows nothing of filters. Where a filter
leaves few rows these are simply compared, all of them; where it leaves many, so many more
candidates are asked for that enough of them pass. Either way a filter never empties an answer.

A ranking by influence is ruled by the rows of the largest norms, whatever their cosines; so many of
them as are compared again are candidates always.

The spread of the scores comes from a sample of the rows that is drawn once, uniformly, by a seed
(`influence.noise` says what that costs).
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from service.search.backend import NO_ROWS, Found, Side, Sought, stacked
from service.search.stored import StoredRows, cosines_of
from service.search.top import top_rows

FEW = 0.1  # share of the rows below which those that a filter leaves are compared one by one


class Nearest(Protocol):
    """Names candidates."""

    @property
    def weighted(self) -> bool:
        """Whether it can rank by cosine times norm."""
        ...

    @property
    def most(self) -> int | None:
        """Most candidates it can name; None: no limit."""
        ...

    def nearest(self, queries: np.ndarray, k: int, *, weighted: bool) -> np.ndarray:
        """Rows of about the ``k`` highest scores: ``[Q, D]`` -> ``[Q, k]``; -1 where none is."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class CandidateSearch:
    """`service.search.backend.Search` by candidates.

    Args:
        name: For people.
        nearest: Names the candidates.
        stored: The vectors that decide.
        norms: Of the rows, ``[N]``.
        rescored: Candidates of each side.
        exact: Whether the candidates are the true best.
        recall: As measured.
    """

    ranks_by_influence = True

    def __init__(
        self,
        name: str,
        nearest: Nearest,
        stored: StoredRows,
        norms: np.ndarray,
        *,
        rescored: int,
        exact: bool = False,
        recall: float | None = None,
    ) -> None:
        self.name, self.exact, self.recall = name, exact, recall
        self.rows, self.dims = stored.rows, stored.dims
        self._nearest, self._stored, self._norms = nearest, stored, norms
        self._rescored = rescored
        self._heaviest = top_rows(norms, rescored)
        self._sample = stored.take_stored(sampled_rows(self.rows))

    def search(self, queries: Sequence[Sought]) -> list[Found]:
        """Search for several queries at once (`service.search.backend.Search.search`)."""
        vectors = stacked(queries, self.dims)
        candidates = self._candidates(queries, vectors)
        return [self._found(query, rows) for query, rows in zip(queries, candidates, strict=True)]

    def _candidates(self, queries: Sequence[Sought], vectors: np.ndarray) -> list[np.ndarray]:
        """For each query the rows to compare."""
        out = [np.empty(0, dtype=np.int64)] * len(queries)
        asked: dict[tuple[int, bool], list[int]] = {}
        for number, query in enumerate(queries):
            k = self._needed(query)
            if k is None:
                allowed = query.allowed
                out[number] = np.arange(self.rows) if allowed is None else np.flatnonzero(allowed)
                continue
            for weighted in {False, query.weighted}:
                asked.setdefault((k, weighted), []).append(number)
        for (k, weighted), numbers in asked.items():
            both = np.concatenate([vectors[numbers], -vectors[numbers]])
            named = self._nearest.nearest(both, k, weighted=weighted)
            for number, up, down in zip(numbers, *np.split(named, 2), strict=True):
                out[number] = np.concatenate([out[number], up, down])
        for number, query in enumerate(queries):
            heavy = [self._heaviest] if query.weighted else []
            rows = np.unique(np.concatenate([out[number], *heavy]))
            rows = rows[rows >= 0]
            out[number] = rows if query.allowed is None else rows[query.allowed[rows]]
        return out

    def _needed(self, query: Sought) -> int | None:
        """How many candidates to ask for; None: compare every row that is allowed."""
        wanted = max(self._rescored, query.k)
        share = 1.0 if query.allowed is None else float(query.allowed.mean())
        if share < FEW or (query.weighted and not self._nearest.weighted):
            return None
        k = min(int(np.ceil(wanted / share)), self.rows)
        return None if self._nearest.most is not None and k > self._nearest.most else k

    def _found(self, query: Sought, rows: np.ndarray) -> Found:
        cosines = self._stored.cosines(rows, query.vector)
        scores = cosines * self._norms[rows] if query.weighted else cosines

        def side(sign: int) -> Side:
            best = top_rows(np.float32(sign) * scores, query.k)
            return Side(rows[best], cosines[best])

        return Found(
            proponents=side(1),
            opponents=side(-1) if query.opponents else NO_ROWS,
            highest=float(cosines.max(initial=-1.0)),
            sample=cosines_of(self._sample, query.vector),
        )

    def close(self) -> None:
        """Free what names the candidates."""
        self._nearest.close()


def sampled_rows(rows: int) -> np.ndarray:
    """The rows that stand for the index: a hundredth, 1,024 to 4,096, drawn uniformly; sorted."""
    size = min(rows, max(1024, min(rows // 100, 4096)))
    return np.sort(np.random.default_rng(0).choice(rows, size, replace=False))
