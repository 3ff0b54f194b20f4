"""Exact search: the cosine of a query with every row of the index, in one pass over memory.

A scan reads ``N · D`` numbers and the scores are ``N``, so all of them cost no more than the best
ten (`service.search.scan`). The rows lie in parts, which as many threads as there are cores work
through (`benchmarks.search`). They are float32 where that fits the memory given, else float16,
which is what the store holds; where neither fits they stay on disk and are read there, part by
part, for every query. All three are exact.

Products of float16 want both sides in float16. Rounding a query moves its cosine with a unit vector
by at most the length of what was rounded off, about ``2⁻¹²``, and the float32 sum of ``D`` products
by ``D · 2⁻²⁴``; the few rows that this leaves in doubt are compared again.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import faiss
import numkong
import numpy as np
import torch

from influence.vector_file import VectorFile
from service.search.backend import Found, Sought, stacked
from service.search.scan import found_by_scan
from service.search.stored import StoredRows

Precision = Literal["float32", "float16", "disk"]

MATRIX_FROM = 4  # queries from which converting rows to float32 for a matrix product pays
PART_BYTES = 2**24  # of float16; a part in float32 beside it is 50 MB in all

_PARTS_PER_THREAD = 4  # so that a thread that was held up is not waited for
_MAX_PART_ROWS = 4096  # the scores of a part are kept in cache


def available_threads() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ExactSearch:
    """Scores of queries with all rows (`service.search.backend.Search`).

    Args:
        shards: Unit vectors, ``[n, D]`` float16, in the order of the rows; in files for ``disk``.
        norms: Of the rows, ``[N]`` float32: the weights of a weighted search.
        precision: Of the vectors in memory; ``disk``: they stay there.
        threads: That work on one query; all cores by default.
        part_bytes: Most of a part of float16 vectors.
    """

    exact = True
    ranks_by_influence = True
    recall = None

    def __init__(
        self,
        shards: Sequence[np.ndarray | VectorFile],
        norms: np.ndarray,
        *,
        precision: Precision = "float32",
        threads: int | None = None,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self.name: Precision = precision
        self._norms = norms
        stored = StoredRows(shards)
        self.rows, self.dims = stored.rows, stored.dims
        threads = threads or available_threads()
        most_rows = max(1, min(part_bytes // max(2 * self.dims, 1), _MAX_PART_ROWS))
        if precision == "disk":
            self._stored = stored
        else:
            most_rows = max(1, min(-(-self.rows // (threads * _PARTS_PER_THREAD)), most_rows))
            dtype = np.float32 if precision == "float32" else np.float16
            self._stored = StoredRows(list(_copied(stored, most_rows, dtype)))
        self._parts = self._stored.bounds(most_rows)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")

    def search(self, queries: Sequence[Sought]) -> list[Found]:
        """Search for several queries at once (`service.search.backend.Search.search`)."""
        vectors = stacked(queries, self.dims)
        if len(queries) >= MATRIX_FROM:
            scores, errors = self._products(vectors), np.zeros(len(queries))
        else:
            scores, errors = self._scans(vectors)
        return [
            found_by_scan(query, own, self._norms, self._stored, error=float(error))
            for query, own, error in zip(queries, scores, errors, strict=True)
        ]

    def _scans(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cosines ``[Q, N]``, one query after the other, and how far each query's may be off."""
        out = np.empty((len(queries), self.rows), dtype=np.float32)
        halves = queries.astype(np.float16)

        def scan(part: tuple[int, int]) -> None:
            rows, to = self._stored.read(*part), out[:, slice(*part)]
            if self.name == "float32":
                for query, scores in zip(queries, to, strict=True):
                    _float32_products(rows, query, scores)
            else:
                to[:] = numkong.cdist(halves, rows, "dot")

        list(self._pool.map(scan, self._parts))
        if self.name == "float32":
            return out, np.zeros(len(queries))
        rounded_off = np.linalg.norm(queries - halves.astype(np.float32), axis=1)
        return out, 1.001 * rounded_off + self.dims * 2.0**-24

    def _products(self, queries: np.ndarray) -> np.ndarray:
        """Cosines ``[Q, N]`` by matrix products, which have threads of their own."""
        out = np.empty((len(queries), self.rows), dtype=np.float32)
        asked = torch.from_numpy(queries)
        for part in self._parts:
            # PyTorch converts float16 five times as fast as numpy.
            full = torch.from_numpy(self._stored.read(*part)).float()
            torch.from_numpy(out)[:, slice(*part)].copy_(asked @ full.T)
        return out

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _copied(stored: StoredRows, per_part: int, dtype: type) -> Iterator[np.ndarray]:
    """All rows in arrays of ``per_part`` rows, the last one shorter."""
    for first in range(0, stored.rows, per_part):
        wanted = np.arange(first, min(first + per_part, stored.rows))
        yield stored.take(wanted).astype(dtype)


def _float32_products(rows: np.ndarray, query: np.ndarray, out: np.ndarray) -> None:
    """Write inner products of ``[n, D]`` with ``[D]`` to ``out [n]``: FAISS's scan, no heap."""
    # Wrapped by SWIG at import, so it is not in what type checkers see of faiss.
    faiss.fvec_inner_products_ny(  # pyright: ignore[reportAttributeAccessIssue]
        faiss.swig_ptr(out),
        faiss.swig_ptr(query),
        faiss.swig_ptr(rows),
        rows.shape[1],
        len(rows),
    )
