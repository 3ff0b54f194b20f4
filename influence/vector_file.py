"""Rows of a vector file that are read from the disk whenever they are needed, and never mapped.

A read of a mapped file that was cut short ends the process (SIGBUS), and one of a file that was
written over gives numbers that nobody computed. A plain read comes up short instead, and a file
whose size or time is not that of its opening is refused: a version's files never change, so an
answer from one that did would be wrong. Importing this module loads neither torch nor faiss.
"""

import os
from pathlib import Path

import numpy as np

from influence.errors import IndexCorrupt


class VectorFile:
    """Rows ``[n, D]`` of a `.npy` file; for several threads.

    Args:
        path: The file.
        mapped: All of it, as `numpy.load` maps it; only its header is looked at.

    Raises:
        IndexCorrupt: It is gone.
    """

    def __init__(self, path: Path, mapped: np.ndarray) -> None:
        assert isinstance(mapped, np.memmap)
        self._file = _File(path)
        self._offset = mapped.offset
        self.dtype, self.shape = mapped.dtype, mapped.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, run: slice) -> "VectorFile":
        """Some of its rows in a run, from the same open file."""
        first, end, _ = run.indices(len(self))
        part = object.__new__(VectorFile)
        part._file, part.dtype = self._file, self.dtype
        part._offset = self._offset + first * self._row_bytes
        part.shape = (end - first, *self.shape[1:])
        return part

    def read(self) -> np.ndarray:
        """All rows, ``[n, D]``.

        Raises:
            IndexCorrupt: The file is not what it was when it was opened.
        """
        rows = np.empty(self.shape, self.dtype)
        self._file.read_into(rows, self._offset)
        return rows

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Some rows, ``[n, D]``, by their numbers.

        Raises:
            IndexCorrupt: The file is not what it was when it was opened.
        """
        taken = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for row, to in zip(rows, taken, strict=True):
            self._file.read_into(to, self._offset + int(row) * self._row_bytes)
        return taken

    @property
    def _row_bytes(self) -> int:
        return self.dtype.itemsize * int(np.prod(self.shape[1:]))


class _File:
    """An open file, closed when nobody has it any more."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise IndexCorrupt(
                f"{path} cannot be opened ({error.strerror}). Restore it from a backup, or build "
                "the index again."
            ) from error
        self._seen = self._mark()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read_into(self, rows: np.ndarray, offset: int) -> None:
        to = rows.data.cast("B")
        done = 0
        while done < len(to):
            try:
                count = os.preadv(self._descriptor, [to[done:]], offset + done)
            except OSError as error:
                raise self._changed(f"cannot be read ({error.strerror})") from error
            if count == 0:
                raise self._changed("was cut short")
            done += count
        if self._mark() != self._seen:
            raise self._changed("was written to")

    def _mark(self) -> tuple[int, int]:
        found = os.fstat(self._descriptor)
        return found.st_size, found.st_mtime_ns

    def _changed(self, how: str) -> IndexCorrupt:
        return IndexCorrupt(
            f"{self._path} {how} since it was opened. Restore it from a backup and start again; "
            "`whence verify` finds what else was altered."
        )
