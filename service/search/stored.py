"""The vectors of an index as they lie on disk: memory-mapped, read a part at a time, and let go.

Pages of a mapped file that were read count as memory of this process until it gives them back. So
whoever works under a limit reads through here, which gives them back; the operating system keeps
them cached for as long as nothing else needs the room.
"""

import mmap
from collections.abc import Iterator, Sequence

import numkong
import numpy as np

_GATHERED = 1024  # rows that are compared at once
_LOW_SCALE = 2**11  # lifts what float16 rounds off a number out of float16's subnormal numbers


class StoredRows:
    """Unit vectors of all rows.

    Args:
        shards: ``[n, D]`` float16, memory-mapped or not, in the order of the rows.
    """

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self._shards = list(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.rows = int(self._starts[-1])
        self.dims = shards[0].shape[1] if shards else 0

    def parts(self, most_rows: int) -> Iterator[np.ndarray]:
        """All rows in order, in views ``[n, D]`` of at most so many, none across two shards."""
        for shard in self._shards:
            for first in range(0, len(shard), most_rows):
                yield shard[first : first + most_rows]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, ``[n, D]`` float32."""
        return self._gathered(rows, np.float32)

    def take_stored(self, rows: np.ndarray) -> np.ndarray:
        """Some rows as they are stored, ``[n, D]`` float16: a tenth of the time of `take`."""
        return self._gathered(rows, np.float16)

    def cosines(self, rows: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Exact cosines of some rows with a unit vector ``[D]`` float32; ``[n]`` float32."""
        out = np.empty(len(rows), dtype=np.float32)
        for first in range(0, len(rows), _GATHERED):
            chunk = rows[first : first + _GATHERED]
            out[first : first + len(chunk)] = cosines_of(self.take_stored(chunk), query)
        return out

    def _gathered(self, rows: np.ndarray, dtype: type) -> np.ndarray:
        out = np.empty((len(rows), self.dims), dtype=dtype)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        for shard in np.unique(shards):
            here = shards == shard
            out[here] = self._shards[shard][rows[here] - self._starts[shard]]
            let_go(self._shards[shard])
        return out


def cosines_of(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products of ``[n, D]`` float16 with a unit vector ``[D]`` float32; ``[n]`` float32.

    Products of float16 with float16 are many times faster than converting the rows, so the query
    goes as two float16 vectors, ``q = h + 2⁻¹¹ l``: what they leave out of a number is ``2⁻²²`` of
    it, no more than the rounding of float32 sums. Each row has a sum of its own, so that its bits
    do not depend on the other rows.
    """
    if not len(rows):  # numkong takes none
        return np.empty(0, dtype=np.float32)
    high = query.astype(np.float16)
    low = ((query - high.astype(np.float32)) * np.float32(_LOW_SCALE)).astype(np.float16)
    products = np.asarray(numkong.cdist(np.stack([high, low]), rows, "dot"), dtype=np.float32)
    return products[0] + products[1] * np.float32(1 / _LOW_SCALE)


def let_go(rows: np.ndarray) -> None:
    """Give the pages of memory-mapped rows back; they are read again when they are next needed."""
    mapped = getattr(rows, "_mmap", None)
    if mapped is None or not hasattr(mmap, "MADV_DONTNEED") or len(rows) == 0:
        return
    base = np.frombuffer(mapped, dtype=np.uint8).ctypes.data
    first = (rows.ctypes.data - base) // mmap.PAGESIZE * mmap.PAGESIZE
    end = rows.ctypes.data - base + rows.nbytes
    mapped.madvise(mmap.MADV_DONTNEED, first, end - first)
