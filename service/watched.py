"""A small file that is read again when it has changed.

Importing this module loads neither torch nor faiss.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

Content = TypeVar("Content")


class WatchedFile(Generic[Content]):
    """What a file says now; for several threads.

    A file that has become unreadable is an error at every use, never what it said before.

    Args:
        path: Is to be replaced whole, by a rename, so that it is never seen half-written.
        read: Reads and checks it; raises what `content` shall raise.
    """

    def __init__(self, path: Path, read: Callable[[Path], Content]) -> None:
        self._path = path
        self._read = read
        self._seen = (self._mark(), read(path))

    def content(self) -> Content:
        """What the file says, read again if it is not the one of the last time."""
        mark = self._mark()
        if mark is None or mark != self._seen[0]:
            self._seen = (mark, self._read(self._path))
        return self._seen[1]

    def _mark(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None  # reading it says why
        return found.st_mtime_ns, found.st_ino, found.st_size
