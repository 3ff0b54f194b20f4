"""Locks on an index folder that end with their holder, however it ends.

An advisory lock of the kernel on an empty file: a process that is killed lets go of it in that
moment, so no lock is ever stale. On network file systems it holds across machines (NFS since
version 3 by its lock service; Lustre mounted with ``flock``).
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from influence.atomic import storage_errors
from influence.errors import IndexBusy

WRITERS = ".writers.lock"  # shared by the processes of one build, held alone by any other change
ENTRANCE = ".entrance.lock"  # held for moments: while a process joins a build, or ends it
# Held for moments as well, while a version is made and CURRENT replaced. It is not that of writers,
# so that a document can be removed while an index is built for hours.
CHANGES = ".changes.lock"

_CHANGES_WAIT_S = 60.0
_RETRY_S = 0.02
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


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
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            raise IndexBusy(
                f"{self._stream.name} cannot be locked ({error}), so two writers could meet. Keep "
                "the index on a file system with locks, such as a local disk."
            ) from error
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


@contextmanager
def sole_writer(index_dir: Path) -> Iterator[None]:
    """Be the only one who builds on an index; for work that takes long.

    Raises:
        IndexBusy: Another process does; the message has its number and when it began.
        StorageFull: The folder cannot be written.
    """
    with _held(index_dir, WRITERS, wait_s=0):
        yield


@contextmanager
def changing(index_dir: Path, *, wait_s: float = _CHANGES_WAIT_S) -> Iterator[None]:
    """Be the only one who makes a version current; waits for another change, which takes moments.

    Raises:
        IndexBusy: The other change takes longer than that.
        StorageFull: The folder cannot be written.
    """
    with _held(index_dir, CHANGES, wait_s=wait_s):
        yield


def sign(path: Path) -> None:
    """Say in a lock's file who holds it, for the message to whoever wants it.

    What a killed process left over there locks nothing, and the next holder writes over it.
    """
    holder = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with storage_errors(path):
        path.write_text(json.dumps(holder))


@contextmanager
def _held(index_dir: Path, name: str, *, wait_s: float) -> Iterator[None]:
    path = index_dir / name
    lock = FileLock(path)
    until = time.monotonic() + wait_s
    try:
        while not lock.try_acquire():
            if time.monotonic() >= until:
                raise IndexBusy(
                    f"{index_dir} is being written to by {_holder(path)}. Wait until it is done; "
                    "if it is not wanted, end that process and run this again."
                )
            time.sleep(_RETRY_S)
        sign(path)
        yield
    finally:
        lock.close()


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return f"process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"  # which has not got to write its name yet
