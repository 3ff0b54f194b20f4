"""One-bit codes: a scan of a sixteenth of what float16 takes names candidates.

RaBitQ (Gao and Long, arXiv 2405.12497) keeps of each number of a rotated vector its sign, and of
each vector two numbers that make the estimate of an inner product unbiased. The query is rounded to
`_QUERY_BITS` bits a number, which adds a hundredth to the error of the signs. Half-whitened unit
vectors are near isotropic, and a random rotation makes them more so. It is a Hadamard rotation
rather than a dense one: at 16,384 dims a dense matrix is 1 GB that every query would have to read,
five times the codes of 100,000 rows. It pads to a power of two.

A second set of codes, of the vectors times their norms, serves the ranking by influence.

FAISS's vectorised scan (`IndexRaBitQFastScan`) is not used: in faiss 1.15.1, at 4,096 dims, the
estimates of rows of a cosine above some .15 to .4 wrap around, so the nearest rows come out last.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import faiss
import numpy as np

from service.search.exact import available_threads
from service.search.stored import StoredRows

_QUERY_BITS = 4  # of a number of the query: more take time and find nothing more
_BUILD_ROWS = 1024
_CENTRE_ROWS = 4096
_SEED = 12345  # of the rotation; FAISS's own


def rabitq_codes(stored: StoredRows, norms: np.ndarray) -> dict[str, np.ndarray]:
    """Codes of all rows, and the centre that they are relative to.

    Returns:
        ``codes [N, bytes]`` and ``centre`` of the unit vectors, ``weighted_codes`` of the vectors
        times their norms: relative to 0, since a few rows of huge norm would rule their mean.
    """
    rotation = _rotation(stored.dims)
    drawn = np.sort(
        np.random.default_rng(0).choice(stored.rows, min(stored.rows, _CENTRE_ROWS), replace=False)
    )
    sample = rotation.apply(stored.take(drawn))
    plain, weighted = _empty(rotation.d_out), _empty(rotation.d_out)
    plain.train(sample)
    weighted.train(np.zeros_like(sample))
    codes = np.empty((stored.rows, plain.code_size), dtype=np.uint8)
    weighted_codes = np.empty_like(codes)
    first = 0
    for part in stored.parts(_BUILD_ROWS):
        rows = slice(first, first + len(part))
        rotated = rotation.apply(part.astype(np.float32))
        codes[rows] = plain.sa_encode(rotated)
        weighted_codes[rows] = weighted.sa_encode(rotated * norms[rows, None])
        first += len(part)
    return {
        "codes": codes,
        "centre": faiss.vector_to_array(plain.center),
        "weighted_codes": weighted_codes,
    }


def rabitq_bytes(rows: int, dims: int) -> int:
    """Memory of the codes of so many rows."""
    padded_dims = 1 << (dims - 1).bit_length()
    return 2 * rows * (padded_dims // 8 + 8)


class RaBitQ:
    """Names candidates by `rabitq_codes` (`service.search.candidates.Nearest`).

    Args:
        arrays: What `rabitq_codes` gives.
        rows: ``N``.
        dims: ``D``.
        threads: That work on one query; all cores by default.
    """

    weighted = True
    most = None

    def __init__(
        self, arrays: dict[str, np.ndarray], rows: int, dims: int, *, threads: int | None = None
    ) -> None:
        threads = threads or available_threads()
        self._rotation = _rotation(dims)
        self._first_rows: list[int] = []
        self._parts: dict[bool, list[Any]] = {False: [], True: []}
        centre = arrays["centre"]
        bounds = np.linspace(0, rows, min(threads, rows) + 1, dtype=np.int64)
        for begin, end in pairwise(bounds):
            self._first_rows.append(int(begin))
            for weighted, name in ((False, "codes"), (True, "weighted_codes")):
                zero = np.zeros_like(centre)
                part = _filled(arrays[name][begin:end], zero if weighted else centre)
                self._parts[weighted].append(part)
        self._rounding = faiss.RaBitQSearchParameters()
        # Levels of the query on both sides of 0: half the error of those above its smallest number.
        self._rounding.qb, self._rounding.centered = _QUERY_BITS, True
        self._pool = ThreadPoolExecutor(
            threads,
            thread_name_prefix="search",
            # OpenMP keeps its number of threads for each thread: one each, the parts are threads
            initializer=faiss.omp_set_num_threads,
            initargs=(1,),
        )

    def nearest(self, queries: np.ndarray, k: int, *, weighted: bool) -> np.ndarray:
        """Rows of about the ``k`` highest scores (`service.search.candidates.Nearest.nearest`)."""
        rotated = self._rotation.apply(queries)

        def scan(part: Any) -> tuple[np.ndarray, np.ndarray]:
            return part.search(rotated, min(k, part.ntotal), params=self._rounding)

        found = list(self._pool.map(scan, self._parts[weighted]))
        scores = np.concatenate([scores for scores, _ in found], axis=1)
        rows = np.concatenate(
            [
                np.where(rows >= 0, rows + first, -1)
                for (_, rows), first in zip(found, self._first_rows, strict=True)
            ],
            axis=1,
        )
        if rows.shape[1] <= k:
            return rows
        best = np.argpartition(scores, -k, axis=1)[:, -k:]
        return np.take_along_axis(rows, best, axis=1)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


def _rotation(dims: int) -> Any:
    rotation = faiss.HadamardRotation(dims, _SEED)
    rotation.train(np.zeros((1, dims), dtype=np.float32))
    return rotation


def _empty(dims: int) -> Any:
    return faiss.IndexRaBitQ(dims, faiss.METRIC_INNER_PRODUCT)


def _filled(codes: np.ndarray, centre: np.ndarray) -> Any:
    """An index of codes ``[n, bytes]`` that were made before."""
    index = _empty(len(centre))
    faiss.copy_array_to_vector(np.ascontiguousarray(centre, dtype=np.float32), index.center)
    faiss.copy_array_to_vector(np.ascontiguousarray(codes).reshape(-1), index.codes)
    index.is_trained = True
    index.ntotal = len(codes)
    return index
