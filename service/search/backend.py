"""What the ranking asks of a search, and what it gets, whichever way the rows are searched.

A search works on cosines of unit vectors. Ranking by influence multiplies them by the norms of the
rows, so it is a search with *weights*. A filter is a mask over the rows. What a query needs of the
index as a whole, to tell whether a hit stands out (`influence.noise`), is how its scores spread; a
search that does not compute them all gives those of a sample that was drawn uniformly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from service.schemas import Filter


@dataclass(frozen=True)
class Sought:
    """One query.

    Attributes:
        vector: Unit vector, ``[D]`` float32.
        k: Rows wanted on each side.
        weighted: Rank by the cosine times the norm of the row, which orders as influence does,
            rather than by the cosine alone.
        allowed: The rows that may be found, ``[N]`` of bool; all when None.
        filter: What was asked for that makes them so, for a search that keeps no rows itself.
        opponents: Whether the rows of the lowest scores are wanted as well.
    """

    vector: np.ndarray
    k: int
    weighted: bool = False
    allowed: np.ndarray | None = None
    filter: Filter | None = None
    opponents: bool = True


@dataclass(frozen=True)
class Side:
    """Rows, best first, equal ones in the order of the rows, with their exact cosines.

    Attributes:
        rows: ``[n]``, at most ``k``.
        cosines: ``[n]`` float32; negative ones oppose the query, on whichever side they are.
    """

    rows: np.ndarray
    cosines: np.ndarray


@dataclass(frozen=True)
class Found:
    """What a search found for one query.

    Attributes:
        proponents: The highest scores first.
        opponents: The lowest scores first; empty if they were not wanted.
        highest: The highest cosine of any row that may be found; -1 where there is none.
        sample: Cosines of rows drawn uniformly from the whole index, filter or no filter; of every
            row where the search computes them all.
    """

    proponents: Side
    opponents: Side
    highest: float
    sample: np.ndarray


class Search(Protocol):
    """A way to search the rows of one index."""

    @property
    def name(self) -> str:
        """Of the way, for people."""
        ...

    @property
    def exact(self) -> bool:
        """Whether no row is missed."""
        ...

    @property
    def recall(self) -> float | None:
        """Share of the true best ten that it finds, as measured; None where it is exact."""
        ...

    @property
    def ranks_by_influence(self) -> bool:
        """Whether it can search with weights."""
        ...

    @property
    def rows(self) -> int:
        """``N``."""
        ...

    @property
    def dims(self) -> int:
        """``D``."""
        ...

    def search(self, queries: Sequence[Sought]) -> list[Found]:
        """Search for several queries at once.

        In other company a query's cosines may differ by the rounding of float32, no more.

        Raises:
            ValueError: A query has another length than the rows.
        """
        ...

    def close(self) -> None:
        """Free threads and connections."""
        ...


NO_ROWS = Side(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))


def stacked(queries: Sequence[Sought], dims: int) -> np.ndarray:
    """Vectors of the queries, ``[Q, D]`` float32.

    Raises:
        ValueError: One has another length.
    """
    for query in queries:
        if query.vector.shape != (dims,):
            raise ValueError(
                f"the query has shape {query.vector.shape} and the rows have {dims} dimensions; "
                "both must come from the same basis."
            )
    return np.array([query.vector for query in queries], dtype=np.float32).reshape(-1, dims)
