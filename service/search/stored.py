"""The vectors of an index, in memory or as they lie on disk, read a part at a time.

What is read from the disk is a copy that is let go after use, so whoever works under a limit needs
no more than his parts; the operating system keeps the files cached for as long as nothing else
needs the room.
"""

from collections.abc import Iterator, Sequence

import numkong
import numpy as np

from influence.vector_file import VectorFile

_GATHERED = 1024  # rows that are compared at once
_LOW_SCALE = 2**11  # lifts what float16 rounds off a number out of float16's subnormal numbers


class StoredRows:
    """Unit vectors of all rows.

    Args:
        shards: ``[n, D]`` float16 or float32, in memory or in files, in the order of the rows.
    """

    def __init__(self, shards: Sequence[np.ndarray | VectorFile]) -> None:
        self._shards = list(shards)
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.rows = int(self._starts[-1])
        self.dims = shards[0].shape[1] if shards else 0

    def bounds(self, most_rows: int) -> list[tuple[int, int]]:
        """All rows, in runs ``[first, end)`` of at most so many, none of them across two shards."""
        return [
            (int(first), int(min(first + most_rows, end)))
            for start, end in zip(self._starts, self._starts[1:], strict=False)
            for first in range(start, end, most_rows)
        ]

    def read(self, first: int, end: int) -> np.ndarray:
        """A run of `bounds`, ``[n, D]``.

        Raises:
            IndexCorrupt: A file is not what it was when it was opened; as all that follow.
        """
        shard = int(np.searchsorted(self._starts, first, side="right")) - 1
        start = int(self._starts[shard])
        run = self._shards[shard][first - start : end - start]
        return run.read() if isinstance(run, VectorFile) else run

    def parts(self, most_rows: int) -> Iterator[np.ndarray]:
        """All rows in order, as `bounds` cuts them."""
        return (self.read(*run) for run in self.bounds(most_rows))

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
        for number in np.unique(shards):
            here = shards == number
            shard, wanted = self._shards[number], rows[here] - self._starts[number]
            out[here] = shard.take(wanted) if isinstance(shard, VectorFile) else shard[wanted]
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
