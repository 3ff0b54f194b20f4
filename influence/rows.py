"""Which stored rows are there to be seen, and how readers number them.

Removing a document rewrites nothing: its rows stay in the shards until the next compaction, listed
in `tombstones.npz`. A reader never shows them: it numbers the rows that are left from 0, so whoever
searches, sums or counts over its rows cannot meet one that was removed.
"""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np

TOMBSTONES = "tombstones.npz"


@dataclass(frozen=True)
class Tombstones:
    """What was removed, by the numbers under which it is stored; both sorted, int64.

    Attributes:
        rows: Of passages, in the order of the shards.
        documents: Of documents, likewise.
    """

    rows: np.ndarray
    documents: np.ndarray

    @classmethod
    def none(cls) -> "Tombstones":
        """Nothing was removed."""
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    @classmethod
    def load(cls, path: Path) -> "Tombstones":
        """Read what `to_bytes` gave.

        Raises:
            ValueError: It is something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["rows"], stored["documents"])
        except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} holds no tombstones") from error

    def to_bytes(self) -> bytes:
        """The bytes of `tombstones.npz`."""
        content = BytesIO()
        np.savez(content, rows=self.rows, documents=self.documents)
        return content.getvalue()

    def with_more(self, rows: np.ndarray, documents: np.ndarray) -> "Tombstones":
        """These and more."""
        return Tombstones(np.union1d(self.rows, rows), np.union1d(self.documents, documents))


class LiveRows:
    """The rows left of ``stored`` ones, numbered from 0.

    Args:
        stored: How many are stored.
        dead: Those removed, sorted.
    """

    def __init__(self, stored: int, dead: np.ndarray) -> None:
        self._stored = stored
        self._dead = dead
        self._live_before = dead - np.arange(len(dead))  # rows left before each removed one

    def __len__(self) -> int:
        return self._stored - len(self._dead)

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """Stored numbers of rows."""
        return rows + np.searchsorted(self._live_before, rows, side="right")

    def mask(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """Which of the stored rows ``[first, end)`` are left, of bool."""
        end = self._stored if end is None else end
        left = np.ones(end - first, dtype=bool)
        low, high = np.searchsorted(self._dead, [first, end])
        left[self._dead[low:high] - first] = False
        return left

    def runs(self, first: int, end: int) -> Iterator[slice]:
        """The longest stretches of rows left in ``[first, end)``, relative to ``first``."""
        low, high = np.searchsorted(self._dead, [first, end])
        edges = [-1, *(self._dead[low:high] - first).tolist(), end - first]
        for before, after in pairwise(edges):
            if after - before > 1:
                yield slice(before + 1, after)
