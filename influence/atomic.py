"""Files that are whole or absent: temporary name, flush, fsync, rename."""

import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influence.errors import StorageFull

TEMPORARY = ".*.tmp"  # matches what a process that was killed left over

_MAKE_ROOM = "Free some space and run the same command again; it continues where it stopped."
_CHOOSE = "Choose another folder, or give yourself the right to write there."
_REASONS = {
    errno.ENOSPC: ("the disk is full", _MAKE_ROOM),
    errno.EDQUOT: ("the disk quota is used up", _MAKE_ROOM),
    errno.EFBIG: ("a file would be larger than is allowed here (ulimit -f)", _MAKE_ROOM),
    errno.EACCES: ("there is no permission to write there", _CHOOSE),
    errno.EPERM: ("there is no permission to write there", _CHOOSE),
    errno.EROFS: ("the file system is read-only", _CHOOSE),
    errno.ENOTDIR: ("a file is in the way of a folder", _CHOOSE),
    errno.EEXIST: ("a file is in the way of a folder", _CHOOSE),
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a disk that is full or cannot be written into one sentence that names the path.

    Raises:
        StorageFull: No room left, no right to write, or any other failure to write.
    """
    try:
        yield
    except OSError as error:
        reason, advice = _REASONS.get(error.errno or 0, (str(error), _CHOOSE))
        raise StorageFull(f"Writing {path} failed: {reason}. {advice}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and takes its place.

    After an exception the temporary file is gone and ``path`` is as it was.

    Raises:
        StorageFull: The disk is full or the folder cannot be written.
    """
    # Not named by process number: processes of several machines write into one shared folder.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(path):
        try:
            yield temporary
            flush_to_disk(temporary)
            temporary.replace(path)
            flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def flush_to_disk(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
