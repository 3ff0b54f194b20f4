"""What administrators did: a file that is only ever added to, one JSON object a line.

An action is written down, and on the disk, before it is done, and its outcome after: nothing is
done that is not in the log. Importing this module loads neither torch nor faiss.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from influence.atomic import storage_errors


class AuditLog:
    """Appends to one file; several processes may share it.

    Args:
        path: The file; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @contextmanager
    def action(self, who: str, what: str, *, request_id: str | None = None) -> Iterator[None]:
        """Note that ``who`` does ``what``, let it be done, and note what came of it.

        Raises:
            StorageFull: It cannot be written down; then it is not done.
        """
        self._append(who, what, request_id, "begun")
        try:
            yield
        except BaseException as error:
            self._append(who, what, request_id, f"failed: {type(error).__name__}")
            raise
        self._append(who, what, request_id, "done")

    def _append(self, who: str, what: str, request_id: str | None, outcome: str) -> None:
        if self._path is None:
            return
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "who": who,
            "what": what,
            "request_id": request_id,
            "outcome": outcome,
        }
        with storage_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o640)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # lines of several processes do not mix
                _append_whole(file, json.dumps(entry).encode("ascii") + b"\n")
            finally:
                os.close(file)


def _append_whole(file: int, line: bytes) -> None:
    """All of a line, on the disk, or nothing of it: half of one would spoil the next."""
    end = os.lseek(file, 0, os.SEEK_END)
    try:
        written = 0
        while written < len(line):
            written += os.pwrite(file, line[written:], end + written)
        os.fsync(file)
    except OSError:
        os.ftruncate(file, end)
        raise
