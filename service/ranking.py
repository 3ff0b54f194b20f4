"""From the vector of a query to ranked rows, each with its influence and its confidence.

Every way to search gives exact cosines of what it found and the spread of the query's scores over
the index, or over a uniform sample of it; so a confidence means the same whichever way was taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from influence.noise import Spread, spread_of
from influence.store import IndexReader
from service.confidence import STANDS_OUT, confidence
from service.schemas import AttributeRequest, Filter
from service.search.backend import Found, Search, Side, Sought


@dataclass(frozen=True)
class Ranked:
    """Rows with influence, relative influence and confidence, for and against."""

    proponents: list[tuple[int, float, float, float]]
    opponents: list[tuple[int, float, float, float]]
    stands_out: bool


class Ranker:
    """Ranks the rows of one index.

    Args:
        reader: The index.
        search: Of its rows.
    """

    def __init__(self, reader: IndexReader, search: Search) -> None:
        self._reader = reader
        self._search = search

    def rank(self, queries: Sequence[tuple[np.ndarray, AttributeRequest]]) -> list[Ranked]:
        """Rank for several queries at once.

        Args:
            queries: Vectors before normalisation, ``[D]``, and what was asked of each.
        """
        norms = [float(np.linalg.norm(vector.astype(np.float64))) for vector, _ in queries]
        sought = [
            Sought(
                vector / np.float32(norm),
                request.top_k,
                weighted=request.ranking == "influence",
                allowed=self._allowed(request.filter),
                filter=request.filter,
                opponents=request.opponents,
            )
            for (vector, request), norm in zip(queries, norms, strict=True)
        ]
        found = self._search.search(sought)
        return [self._judge(f, norm) for f, norm in zip(found, norms, strict=True)]

    def _allowed(self, wanted: Filter | None) -> np.ndarray | None:
        if wanted is None:
            return None
        return self._reader.rows_where(owners=wanted.owners, sources=wanted.sources)

    def _judge(self, found: Found, query_norm: float) -> Ranked:
        calibration = self._reader.manifest.calibration
        null_z = {1: calibration.null_best_z, -1: calibration.null_opponent_z}
        rows, dims = len(self._reader), self._reader.dims

        def certainty(cosines: np.ndarray, sign: int, spread: Spread) -> np.ndarray:
            return confidence(spread.z(sign * cosines), spread, null_z[sign])

        def side(of: Side, sign: int, spread: Spread) -> list[tuple[int, float, float, float]]:
            influences = of.cosines * self._reader.norms[of.rows] * np.float32(query_norm)
            # float16 rounds a unit vector to a length of 1 ± 1e-4 at most; no cosine is above 1
            relative = np.clip(of.cosines, -1, 1)
            columns = (of.rows, influences, relative, certainty(of.cosines, sign, spread))
            return list(zip(*(column.tolist() for column in columns), strict=True))

        spread = spread_of(found.sample, dims=dims, rows=rows)
        opponents = []
        if len(found.opponents.rows):
            opponents = side(found.opponents, -1, spread_of(-found.sample, dims=dims, rows=rows))
        return Ranked(
            proponents=side(found.proponents, 1, spread),
            opponents=opponents,
            stands_out=bool(certainty(np.array(found.highest), 1, spread) >= STANDS_OUT),
        )
