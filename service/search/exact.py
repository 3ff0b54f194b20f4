"""Exact search: the cosine of a query with every row of the index, in one pass over memory.

A scan reads ``N · D`` numbers and the scores are ``N``, so all of them cost no more than the best
ten. With all scores at hand, proponents and opponents come out of one pass, a filter is a mask, a
ranking by influence is a product with the norms, and the spread of the scores is known exactly.

A flat FAISS index scans one query with one thread. So the rows lie in several of them, which as
many threads as there are cores work through (`benchmarks.search`). Vectors are float32 where that
fits the memory given, else float16, which is what the store holds: both are exact, float16 halves
the memory.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Literal

import faiss
import numpy as np

from influence.errors import IndexUnavailable
from service.search.backend import NO_ROWS, Found, Side, Sought, stacked
from service.search.top import top_rows

Precision = Literal["float32", "float16"]

_PARTS_PER_THREAD = 4  # so that a thread that was held up is not waited for
_MAX_PART_ROWS = 4096  # the scores of a part are kept in cache
_BLOCK_ROWS = 512  # as float32 in the product of many queries


def available_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_precision(rows: int, dims: int, *, memory_bytes: int) -> Precision:
    """float32 where it fits, else float16.

    Raises:
        IndexUnavailable: Neither fits.
    """
    if rows * dims * 4 <= memory_bytes:
        return "float32"
    if rows * dims * 2 <= memory_bytes:
        return "float16"
    raise IndexUnavailable(
        f"The vectors of this index take {rows * dims * 2:,} bytes in float16, and search may use "
        f"{memory_bytes:,}. Raise WHENCE_SEARCH_MEMORY_BYTES, or build the index with fewer --dims."
    )


class ExactSearch:
    """Scores of queries with all rows (`service.search.backend.Search`).

    Args:
        shards: Unit vectors, ``[n, D]`` float16, in the order of the rows.
        norms: Of the rows, ``[N]``: the weights of a weighted search.
        precision: Of the vectors in memory.
        threads: That work on one query; all cores by default.
    """

    def __init__(
        self,
        shards: Sequence[np.ndarray],
        norms: np.ndarray,
        *,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> None:
        self.name = precision
        self.exact = True
        self._norms = norms
        self.rows = sum(len(shard) for shard in shards)
        self.dims = shards[0].shape[1] if shards else 0
        threads = threads or available_threads()
        per_part = max(1, min(-(-self.rows // (threads * _PARTS_PER_THREAD)), _MAX_PART_ROWS))
        self._first_rows = [*range(0, self.rows, per_part), self.rows]
        self._parts = [
            _flat(rows, precision) for rows in _slices(shards, pairwise(self._first_rows))
        ]
        # OpenMP keeps its number of threads for each thread: one each, as the parts are the threads
        self._pool = ThreadPoolExecutor(
            threads,
            thread_name_prefix="search",
            initializer=faiss.omp_set_num_threads,
            initargs=(1,),
        )

    def search(self, queries: Sequence[Sought]) -> list[Found]:
        """Search for several queries at once (`service.search.backend.Search.search`)."""
        scores = self.scores_of_many(stacked(queries, self.dims))
        return [self._found(query, own) for query, own in zip(queries, scores, strict=True)]

    def _found(self, query: Sought, cosines: np.ndarray) -> Found:
        scores = cosines * self._norms if query.weighted else cosines

        def side(sign: int) -> Side:
            rows = top_rows(sign * scores, query.k, query.allowed)
            return Side(rows, cosines[rows])

        compared = cosines if query.allowed is None else cosines[query.allowed]
        return Found(
            proponents=side(1),
            opponents=side(-1) if query.opponents else NO_ROWS,
            highest=float(compared.max(initial=-1)),
            sample=cosines,
        )

    def scores(self, queries: np.ndarray) -> np.ndarray:
        """Cosines of unit vectors ``[Q, D]`` with every row, ``[Q, N]`` float32."""
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        out = np.empty((len(asked), self.rows), dtype=np.float32)

        def scan(part: int) -> None:
            first, end = self._first_rows[part], self._first_rows[part + 1]
            for query, scores in zip(asked, out, strict=True):
                _write_scores(self._parts[part], query[None], scores[first:end])

        list(self._pool.map(scan, range(len(self._parts))))
        return out

    def scores_of_many(self, queries: np.ndarray) -> np.ndarray:
        """Cosines of unit vectors ``[Q, D]`` with every row, ``[Q, N]`` float32, as one product.

        The rows are read once for all queries. A single query takes the way of `scores`.
        """
        if len(queries) == 1:
            return self.scores(queries)
        asked = np.ascontiguousarray(queries, dtype=np.float32)
        out = np.empty((len(queries), self.rows), dtype=np.float32)
        for part, (first, end) in zip(self._parts, pairwise(self._first_rows), strict=True):
            for start in range(0, end - first, _BLOCK_ROWS):
                rows = _float32_rows(part, start, min(start + _BLOCK_ROWS, end - first))
                out[:, first + start : first + start + len(rows)] = asked @ rows.T
        return out

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _slices(
    shards: Sequence[np.ndarray], bounds: Iterable[tuple[int, int]]
) -> Iterator[np.ndarray]:
    """Rows [first, end) of the shards laid end to end, one array at a time."""
    starts = np.cumsum([0, *(len(shard) for shard in shards)])
    for first, end in bounds:
        pieces = [
            shard[max(first - start, 0) : end - start]
            for shard, start in zip(shards, starts, strict=False)
            if start < end and first < start + len(shard)
        ]
        yield pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def _flat(vectors: np.ndarray, precision: Precision) -> Any:
    dims = vectors.shape[1]
    if precision == "float32":
        exact = faiss.IndexFlatIP(dims)
        exact.add(np.ascontiguousarray(vectors, dtype=np.float32))
        return exact
    half = faiss.IndexScalarQuantizer(
        dims, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    # Its codes are the very bytes of the store: nothing is converted, nothing is rounded.
    half.add_sa_codes(np.ascontiguousarray(vectors, dtype="<f2").view(np.uint8))
    return half


def _float32_rows(index: Any, first: int, end: int) -> np.ndarray:
    """Rows [first, end) of a flat index, ``[n, D]``: in place where they are float32 already."""
    size = index.ntotal * index.d
    if isinstance(index, faiss.IndexFlatIP):
        return faiss.rev_swig_ptr(index.get_xb(), size).reshape(-1, index.d)[first:end]
    codes = faiss.rev_swig_ptr(index.codes.data(), 2 * size)
    return codes.view("<f2").reshape(-1, index.d)[first:end].astype(np.float32)


def _write_scores(index: Any, query: np.ndarray, out: np.ndarray) -> None:
    """Write the scores of a query ``[1, D]`` with all ``n`` rows of a flat index to ``out [n]``."""
    if isinstance(index, faiss.IndexFlatIP):
        # The scan of `search` without its heap, a tenth faster than a range search for everything.
        to, of = faiss.swig_ptr(out), faiss.swig_ptr(query)
        faiss.fvec_inner_products_ny(  # pyright: ignore[reportAttributeAccessIssue]
            to, of, index.get_xb(), index.d, index.ntotal
        )
        return
    # Its range search is not vectorised (ten times slower); asking for all rows sorts them as well.
    scores, rows = index.search(query, index.ntotal)
    out[rows[0]] = scores[0]
