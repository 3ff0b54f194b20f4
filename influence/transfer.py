"""An index to and from a URL.

Reading goes through a cache on this machine, filled by content:

    CACHE/objects/<sha256>             each file once, whatever versions and indexes share it
    CACHE/indexes/<url>/<name>/        an ordinary index folder of hard links into it

A file is downloaded under a temporary name and takes its place when its sha256 has been checked.
Writing puts the manifest after the files of a version and ``CURRENT`` after the manifest, so that a
reader finds the old version or the new one.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from influence.atomic import file_sha256, replacing, storage_errors, write_bytes
from influence.errors import IndexCorrupt, IndexUnavailable, StorageUnreachable
from influence.manifest import MANIFEST, FileEntry
from influence.remote import Remote, is_url
from influence.store import VERIFIED_BYTES, IndexReader
from influence.versions import CURRENT, VERSIONS

Advance = Callable[[int], None]


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/whence``, which is ``~/.cache/whence`` unless the user moved it."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "whence"


def local_index(location: Path | str, cache_dir: Path | None = None) -> Path:
    """The folder of an index; what is at a URL is pulled into the cache first.

    Raises:
        StorageUnreachable: The URL cannot be read.
        IndexUnavailable: There is no index there; or it is damaged, see `pull`.
    """
    if not is_url(location):
        return Path(location)
    url = str(location).rstrip("/")
    cache = cache_dir or default_cache_dir()
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    index_dir = cache / "indexes" / digest / PurePosixPath(url).name
    pull(url, index_dir, cache / "objects")
    return index_dir


def pull(url: str, index_dir: Path, objects: Path, *, advance: Advance | None = None) -> str:
    """Bring the current version of an index into a folder; only what is not there is downloaded.

    Args:
        url: Where the index is.
        index_dir: An index folder, made if it is not there.
        objects: Files by their sha256, shared by the folders that were pulled.
        advance: Told the bytes that are there, of each file of the version.

    Returns:
        The version.

    Raises:
        StorageUnreachable: The URL cannot be read.
        IndexUnavailable: There is no index.
        IndexCorrupt: A file there is missing, truncated or altered; the message names it.
        StorageFull: There is no room here.
    """
    remote = Remote(url)
    version = remote.current()
    directory = index_dir / VERSIONS / version
    with storage_errors(index_dir):
        directory.mkdir(parents=True, exist_ok=True)
        objects.mkdir(parents=True, exist_ok=True)
    fetched = objects / f".{version}.{secrets.token_hex(4)}.tmp"
    try:
        manifest = remote.manifest(version, fetched)
        hashed = sum(entry.size_bytes for entry in manifest.files.values()) <= VERIFIED_BYTES
        for name, entry in manifest.files.items():
            target = directory / _checked_name(url, name)
            if not _is_intact(target, entry, hashed=hashed):
                kept = objects / entry.sha256
                if not _is_intact(kept, entry, hashed=hashed):
                    remote.fetch(version, name, entry, kept)
                _link(kept, target)
            if advance is not None:
                advance(entry.size_bytes)
        write_bytes(directory / MANIFEST, fetched.read_bytes())
    finally:
        fetched.unlink(missing_ok=True)
    write_bytes(index_dir / CURRENT, f"{version}\n".encode())
    return version


def push(index_dir: Path, url: str, *, advance: Advance | None = None) -> str:
    """Put the current version of an index at a URL and make it current there.

    What the version now current there has already is copied on that side; what an
    interrupted push has left there in full size is kept; a version that is there as a whole is
    written over. The other versions stay.

    Args:
        index_dir: The index; hashed whole first.
        url: Where to; made if it is not there.
        advance: Told the bytes that are there, of each file of the version.

    Returns:
        The version.

    Raises:
        IndexCorrupt: The index is damaged; nothing is written.
        StorageUnreachable: The URL cannot be written.
    """
    reader = IndexReader.open(index_dir)
    reader.verify()
    remote = Remote(url)
    there = _files_there(remote, index_dir)
    folder = f"{VERSIONS}/{reader.version}"
    again = remote.size(f"{folder}/{MANIFEST}") is not None  # and so to mend what is damaged there
    if again:
        there = {}
    for name, entry in reader.manifest.files.items():
        target = f"{folder}/{name}"
        if again or remote.size(target) != entry.size_bytes:
            source = there.get(entry.sha256)
            if source and source != target and remote.size(source) == entry.size_bytes:
                remote.copy(source, target)
            else:
                remote.upload(target, reader.directory / name)
        if advance is not None:
            advance(entry.size_bytes)
    remote.upload(f"{folder}/{MANIFEST}", reader.directory / MANIFEST)
    current = index_dir / f".{CURRENT}.{secrets.token_hex(4)}.tmp"
    try:
        write_bytes(current, f"{reader.version}\n".encode())
        remote.upload(CURRENT, current)
    finally:
        current.unlink(missing_ok=True)
    return reader.version


def verify_remote(url: str) -> tuple[str, int]:
    """Download every file of the current version and hash it; none is kept.

    Returns:
        The version and the number of its files.

    Raises:
        IndexCorrupt: One is missing, truncated or altered; the message names it.
    """
    remote = Remote(url)
    version = remote.current()
    with TemporaryDirectory() as scratch:
        manifest = remote.manifest(version, Path(scratch) / MANIFEST)
        for name, entry in manifest.files.items():
            remote.fetch(version, name, entry, Path(scratch) / "file")  # in the place of the last
    return version, len(manifest.files)


def total_bytes(url: str) -> int:
    """Size of the current version's files; raises as `pull`."""
    remote = Remote(url)
    with TemporaryDirectory() as scratch:
        manifest = remote.manifest(remote.current(), Path(scratch) / MANIFEST)
    return sum(entry.size_bytes for entry in manifest.files.values())


def _files_there(remote: Remote, scratch: Path) -> dict[str, str]:
    """sha256 -> a file of the version that is current at the URL; nothing, where none is sound."""
    into = scratch / f".{MANIFEST}.{secrets.token_hex(4)}.tmp"
    try:
        version = remote.current()
        files = remote.manifest(version, into).files
    except StorageUnreachable:
        raise
    except IndexUnavailable:
        return {}
    finally:
        into.unlink(missing_ok=True)
    return {entry.sha256: f"{VERSIONS}/{version}/{name}" for name, entry in files.items()}


def _checked_name(url: str, name: str) -> str:
    """A name that stays within the folder: the manifest comes from elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise IndexCorrupt(f"The manifest at {url} names {name!r}. Do not trust this index.")
    return name


def _is_intact(path: Path, entry: FileEntry, *, hashed: bool) -> bool:
    if not path.is_file() or path.stat().st_size != entry.size_bytes:
        return False
    return not hashed or file_sha256(path) == entry.sha256


def _link(kept: Path, target: Path) -> None:
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as temporary:
        try:
            temporary.hardlink_to(kept)
        except OSError:  # another file system
            shutil.copyfile(kept, temporary)
