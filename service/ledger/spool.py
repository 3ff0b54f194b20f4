"""The spool: files beside the service that hold what the database does not have yet.

A line is on the disk (fsync) before `append` returns, and a file is taken away only after the
database has committed everything in it. So whatever a killed process has acknowledged is in one of
the two, and the next process that opens the folder takes the files over. A line that was being
written when the process died has no end or a wrong check sum; it was never acknowledged.

A file is locked by the process that writes it, so that several can share a folder.
"""

import fcntl
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from influence.atomic import flush_to_disk, storage_errors
from influence.errors import LedgerBroken

_SUFFIX = ".spool"
MAX_FILE_BYTES = 8 * 2**20


class SpoolFile:
    """A file of this process: written, read from where the last delivery ended, taken away."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._delivered = 0  # offset up to which the database has it
        self.flushed = os.fstat(descriptor).st_size  # offset up to which it is on the disk

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines and flush them to the disk, all of them or none."""
        framed = b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)
        try:
            written = 0
            while written < len(framed):
                written += os.pwrite(self._descriptor, framed[written:], self.flushed + written)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.flushed)
            raise
        self.flushed += len(framed)

    def undelivered(self, limit: int) -> tuple[list[bytes], int]:
        """At most ``limit`` lines that the database does not have, and the offset behind them.

        Raises:
            LedgerBroken: A line before the last one is damaged.
        """
        lines: list[bytes] = []
        offset = self._delivered
        with self.path.open("rb") as stream:
            stream.seek(offset)
            while len(lines) < limit and offset < self.flushed:
                line = stream.readline()
                check, _, content = line.rstrip(b"\n").partition(b" ")
                if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(content):
                    if offset + len(line) < self.flushed:
                        raise LedgerBroken(
                            f"{self.path} is damaged at byte {offset}. Restore it from a backup, "
                            "or move it away and accept that what is in it is not counted."
                        )
                    offset = self.flushed  # half a line: its writer died in it
                    break
                lines.append(content)
                offset += len(line)
        return lines, offset

    def delivered(self, offset: int) -> bool:
        """Remember what the database has; whether that is all of the file."""
        self._delivered = offset
        return offset >= self.flushed

    def remove(self) -> None:
        """Take the file away and let its lock go."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave the file to whoever takes it over."""
        os.close(self._descriptor)


class Spool:
    """The files of one process in a folder.

    Raises:
        StorageFull: The folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.files: list[SpoolFile] = list(self._adopted())
        self._current: SpoolFile | None = None

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines; they are on the disk when this returns.

        Raises:
            StorageFull: The disk is full or the folder cannot be written. None of them counts.
        """
        with storage_errors(self._folder):
            self.current.append(lines)

    @property
    def current(self) -> SpoolFile:
        """The file that is written now; a full one is followed by another."""
        if self._current is None or self._current.flushed >= MAX_FILE_BYTES:
            self._current = self._new()
            self.files.append(self._current)
        return self._current

    def retire(self, file: SpoolFile) -> None:
        """Take a file away that the database has."""
        self.files.remove(file)
        if self._current is file:
            self._current = None
        file.remove()

    def close(self) -> None:
        """Leave what is not delivered to the next process."""
        for file in self.files:
            file.close()

    def _new(self) -> SpoolFile:
        # The name sorts by time; the id of the process keeps two of one nanosecond apart.
        path = self._folder / f"{time.time_ns():020d}-{os.getpid()}{_SUFFIX}"
        with storage_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            flush_to_disk(self._folder)  # the file's name, without which its content is lost
        return SpoolFile(path, descriptor)

    def _adopted(self) -> Iterator[SpoolFile]:
        """Files whose process has ended, the oldest first."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                descriptor = os.open(path, os.O_RDWR)
            except FileNotFoundError:
                continue  # delivered by its process meanwhile
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            if path.exists():
                yield SpoolFile(path, descriptor)
            else:  # taken away before we had the lock
                os.close(descriptor)
