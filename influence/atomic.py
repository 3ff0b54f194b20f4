"""Files that are whole or absent: temporary name, flush, fsync, rename."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from influence.errors import StorageFull

_NO_ROOM = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_NO_RIGHT = {
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.EROFS: "the file system is read-only",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into one sentence that names the path.

    Raises:
        StorageFull: No room left, or no right to write.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        if code in _NO_ROOM:
            raise StorageFull(
                f"Writing {path} failed: {_NO_ROOM[code]}. Free some space and run the same "
                "command again; it continues where it stopped."
            ) from error
        if code in _NO_RIGHT:
            raise StorageFull(
                f"Writing {path} failed: {_NO_RIGHT[code]}. Choose another folder, or give "
                "yourself the right to write there."
            ) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and takes its place.

    After an exception the temporary file is gone and ``path`` is as it was.

    Raises:
        StorageFull: The disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
