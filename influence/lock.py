"""Locks on an index folder that end with their holder, however it ends.

An advisory lock of the kernel on an empty file: a process that is killed lets go of it in that
moment, so no lock is ever stale. On network file systems it holds across machines (NFS since
version 3 by its lock service; Lustre mounted with ``flock``).
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influence.atomic import storage_errors

WRITERS = ".writers.lock"  # shared by the processes of one build, held alone by any other change
ENTRANCE = ".entrance.lock"  # held for moments: while a process joins a build, or ends it


class FileLock:
    """A lock on a file, which is made with its folder if it is not there."""

    def __init__(self, path: Path) -> None:
        """Hold nothing yet.

        Raises:
            StorageFull: The file cannot be made.
        """
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("ab")

    def acquire(self, *, shared: bool = False) -> None:
        """Wait for the lock; holding the other kind of it already, give that up for this one."""
        fcntl.flock(self._stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def try_acquire(self) -> bool:
        """Take the lock alone if nobody else holds it; whether it was taken."""
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go."""
        self._stream.close()


@contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock on a file inside the block, waiting for it first.

    Raises:
        StorageFull: The file cannot be made.
    """
    lock = FileLock(path)
    try:
        lock.acquire(shared=shared)
        yield
    finally:
        lock.close()
