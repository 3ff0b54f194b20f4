"""The published versions of an index: which is current, which are still being read.

    INDEX/versions/000001-…/      a version, never written to again
    INDEX/CURRENT                 names the version that readers open

A reader holds a shared lock of the operating system on the manifest of the version it opened. It is
gone when the reader is, however that ended, and until then the version is not cleared away. Reading
needs no right to write.
"""

import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import weakref
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from influence.atomic import TEMPORARY, flush_to_disk, storage_errors, write_bytes
from influence.errors import IndexCorrupt, IndexTooNew, IndexUnavailable
from influence.manifest import MANIFEST, check_files, check_sizes, plan_sha256, read_manifest

log = logging.getLogger(__name__)

CURRENT = "CURRENT"
VERSIONS = "versions"
PLAN = "plan.json"
SHARD_RECORDS = "shards"
_NAME = re.compile(r"\d{6,}-[0-9a-f]{12}")
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS)


class Lease:
    """Keeps a version from being cleared away, until it is closed or forgotten."""

    def __init__(self, descriptor: int) -> None:
        self.close = weakref.finalize(self, os.close, descriptor)


def current_version(index_dir: Path) -> str:
    """The name in `CURRENT`.

    Raises:
        IndexUnavailable: There is no index in the folder.
        IndexCorrupt: It names no version.
    """
    current = index_dir / CURRENT
    try:
        name = current.read_bytes().decode(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise IndexUnavailable(
            f"There is no index in {index_dir} (no file {CURRENT}). Build one with "
            f"`whence index CORPUS --model MODEL --out {index_dir}`."
        ) from None
    if not _NAME.fullmatch(name):
        raise IndexCorrupt(
            f"{current} names no version, but {name[:40]!r}. Write the name of one of the "
            f"folders in {index_dir / VERSIONS} into it, or build the index again."
        )
    return name


def version_names(index_dir: Path) -> list[str]:
    """All published versions, the oldest first."""
    folder = index_dir / VERSIONS
    found = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((name for name in found if _NAME.fullmatch(name)), key=_number)


def hold(index_dir: Path, version: str) -> Lease | None:
    """Keep a version while it is read; None if it is not there, or was just cleared away."""
    path = index_dir / VERSIONS / version / MANIFEST
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    lease = Lease(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for whoever is clearing it away
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning("%s cannot be locked (%s), so no version is cleared away here", path, error)
    try:
        there = os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        there = False
    return lease if there else None


def hold_alone(index_dir: Path, version: str) -> Lease | None:
    """Keep readers from opening a version; None if one has it open, or it cannot be known."""
    try:
        descriptor = os.open(index_dir / VERSIONS / version / MANIFEST, os.O_RDONLY)
    except OSError:
        return None
    lease = Lease(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lease.close()
        return None
    return lease


def hold_current(index_dir: Path) -> tuple[str, Lease | None]:
    """The current version, held; without a lease if `CURRENT` names one that is not there."""
    name = current_version(index_dir)
    while (lease := hold(index_dir, name)) is None:
        seen, name = name, current_version(index_dir)
        if seen == name:
            break
    return name, lease


def add_version(index_dir: Path, directory: Path, manifest: bytes) -> str:
    """Make a finished folder a version, in one rename; it is not current yet.

    Args:
        index_dir: The index.
        directory: The folder, its manifest written; it is gone afterwards.
        manifest: The bytes of the manifest.

    Returns:
        The version's name: its number and the first 12 digits of the manifest's sha256.
    """
    number = 1 + max((_number(name) for name in version_names(index_dir)), default=0)
    name = f"{number:06d}-{hashlib.sha256(manifest).hexdigest()[:12]}"
    target = index_dir / VERSIONS / name
    with storage_errors(index_dir):
        target.parent.mkdir(exist_ok=True)
        directory.rename(target)
        flush_to_disk(target.parent)
    return name


def make_current(index_dir: Path, version: str) -> None:
    """Point readers at a published version, and clear what its build left over there."""
    write_bytes(index_dir / CURRENT, f"{version}\n".encode())
    directory = index_dir / VERSIONS / version
    with storage_errors(index_dir):
        for abandoned in index_dir.glob(TEMPORARY):
            abandoned.unlink(missing_ok=True)
        (directory / PLAN).unlink(missing_ok=True)
        shutil.rmtree(directory / SHARD_RECORDS, ignore_errors=True)


def published_version(
    index_dir: Path, plan: Mapping[str, Any], *, hashed: bool = True
) -> str | None:
    """The version that was built from exactly this plan and is intact, if there is one.

    A version that is not is no reason to refuse the build which replaces it.

    Args:
        index_dir: The index folder.
        plan: What the version was built from.
        hashed: Hash its files; a version that was published a moment ago needs no more than a look
            at their sizes.
    """
    digest = plan_sha256(plan)
    for name in reversed(version_names(index_dir)):
        path = index_dir / VERSIONS / name / MANIFEST
        try:
            manifest = read_manifest(path)
            if manifest.plan_sha256 == digest:
                (check_files if hashed else check_sizes)(path.parent, manifest)
                return name
        except (IndexCorrupt, IndexTooNew) as error:
            log.warning("passed over: %s", error)
    return None


def with_measurements(index_dir: Path, version: str) -> str:
    """The newest version that is this one with what was measured of it; this one if none was."""
    for name in reversed(version_names(index_dir)):
        directory = index_dir / VERSIONS / name
        try:
            manifest = read_manifest(directory / MANIFEST)
            measured = takewhile(lambda change: change.kind == "measured", manifest.history[::-1])
            if version in {change.parent for change in measured}:
                check_sizes(directory, manifest)  # its files are those of this version, by links
                return name
        except (IndexCorrupt, IndexTooNew) as error:
            log.warning("passed over: %s", error)
    return version


def _number(version: str) -> int:
    return int(version.split("-")[0])
