"""Exact search on GPUs: float16 vectors in FAISS, sharded over all devices.

Not run by the project's own tests, which have no GPU; `faiss-cpu` has none of these names, and
`open_gpu` says so. FAISS gives at most 2,048 rows of a query there; what needs more (a filter that
leaves few rows, a ranking by influence) is compared row by row from the stored vectors.
"""

from typing import Any

import faiss
import numpy as np

from influence.errors import IndexUnavailable
from service.search.candidates import CandidateSearch
from service.search.stored import StoredRows

MOST = 2048  # rows that a search on a GPU can give
_RESCORED = 128  # more than any k, so that float16 products cannot keep a row out of the best
_ROWS = 4096


class GpuFlat:
    """Names candidates by a flat index on GPUs (`service.search.candidates.Nearest`)."""

    weighted = False
    most = MOST

    def __init__(self, index: Any) -> None:
        self._index: Any = index

    def nearest(self, queries: np.ndarray, k: int, *, weighted: bool) -> np.ndarray:
        """Rows of the ``k`` highest scores (`service.search.candidates.Nearest.nearest`)."""
        if weighted:
            raise ValueError("a flat index on a GPU ranks by the cosine alone.")
        return self._index.search(queries, k)[1]

    def close(self) -> None:
        """Free the memory of the devices."""
        self._index = None


def open_gpu(stored: StoredRows, norms: np.ndarray) -> CandidateSearch:
    """Copy all rows to the GPUs, each a share of them.

    Raises:
        IndexUnavailable: FAISS has no GPU here.
    """
    if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        raise IndexUnavailable(
            "FAISS finds no GPU here. Install faiss-gpu in place of faiss-cpu on a machine that "
            "has one, or choose another WHENCE_SEARCH."
        )
    gpu: Any = faiss
    options = gpu.GpuMultipleClonerOptions()
    options.shard = True
    options.useFloat16 = True
    index = gpu.index_cpu_to_all_gpus(faiss.IndexFlatIP(stored.dims), co=options)
    for part in stored.parts(_ROWS):
        index.add(part.astype(np.float32))
    return CandidateSearch("gpu", GpuFlat(index), stored, norms, rescored=_RESCORED, exact=False)
