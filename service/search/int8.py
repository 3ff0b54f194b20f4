"""Search on 8 bits a number: a scan of half of what float16 takes, the best rows compared again.

A row is kept as integers and one scale, ``u ≈ s · c`` with ``s = max|u| / 127``, and a query is
rounded alike, so a product is one of integers and exact: only the two roundings are left, some
1e-4 of a cosine. That does not move the best ten out of the best `RESCORED`; recall is measured all
the same. Like exact search it has the (nearly exact) cosines of all rows.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numkong
import numpy as np

from service.search.backend import Found, Sought, stacked
from service.search.exact import available_threads
from service.search.scan import found_by_scan
from service.search.stored import StoredRows

RESCORED = 200
_PARTS_PER_THREAD = 4
_BUILD_ROWS = 1024


def int8_codes(stored: StoredRows) -> dict[str, np.ndarray]:
    """``codes [N, D]`` int8 and ``scales [N]`` float32 of all rows."""
    codes = np.empty((stored.rows, stored.dims), dtype=np.int8)
    scales = np.empty(stored.rows, dtype=np.float32)
    first = 0
    for part in stored.parts(_BUILD_ROWS):
        rows = slice(first, first + len(part))
        codes[rows], scales[rows] = _rounded(part.astype(np.float32))
        first += len(part)
    return {"codes": codes, "scales": scales}


class Int8Search:
    """`service.search.backend.Search` by `int8_codes`.

    Args:
        arrays: What `int8_codes` gives.
        stored: The vectors, for comparing again.
        norms: Of the rows, ``[N]``.
        recall: As measured.
        threads: That work on one query; all cores by default.
    """

    name = "sq8"
    exact = False
    ranks_by_influence = True

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        stored: StoredRows,
        norms: np.ndarray,
        *,
        recall: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._codes, self._scales = arrays["codes"], arrays["scales"]
        self._stored, self._norms, self.recall = stored, norms, recall
        self.rows, self.dims = stored.rows, stored.dims
        threads = threads or available_threads()
        parts = np.linspace(0, self.rows, threads * _PARTS_PER_THREAD + 1, dtype=np.int64)
        self._parts = [slice(a, b) for a, b in pairwise(parts) if b > a]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="search")

    def search(self, queries: Sequence[Sought]) -> list[Found]:
        """Search for several queries at once (`service.search.backend.Search.search`)."""
        codes, scales = _rounded(stacked(queries, self.dims))
        out = np.empty((len(queries), self.rows), dtype=np.float32)

        def scan(part: slice) -> None:
            products = np.asarray(numkong.cdist(codes, self._codes[part], "dot"))
            out[:, part] = products * scales[:, None] * self._scales[part]

        list(self._pool.map(scan, self._parts))
        return [
            found_by_scan(query, own, self._norms, self._stored, rescored=RESCORED)
            for query, own in zip(queries, out, strict=True)
        ]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _rounded(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers and scale of each vector: ``[n, D]`` -> ``[n, D]`` int8, ``[n]`` float32."""
    scales = np.abs(vectors).max(axis=1) / np.float32(127)
    divisors = np.where(scales > 0, scales, np.float32(1))
    return np.rint(vectors / divisors[:, None]).astype(np.int8), scales
