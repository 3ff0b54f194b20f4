"""Which versions stay: a list of them, going back to one, clearing old ones away."""

import shutil
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from influence.atomic import storage_errors
from influence.change import discard_change
from influence.errors import NotFound
from influence.lock import changing
from influence.manifest import MANIFEST, Manifest, read_manifest
from influence.store import IndexReader
from influence.versions import VERSIONS, current_version, hold_alone, make_current, version_names

_GONE = ".gone-"  # in front of the name of a version that is being cleared away


@dataclass(frozen=True)
class VersionEntry:
    """A published version.

    Attributes:
        name: Of the version.
        manifest: Of the version.
        is_current: Readers that come now open it.
        is_read: A reader has it open, other than this process' look at it.
        own_bytes: What clearing it away would free, files of no other version.
    """

    name: str
    manifest: Manifest
    is_current: bool
    is_read: bool
    own_bytes: int


@dataclass(frozen=True)
class Cleared:
    """Versions cleared away, and those that were to be and are still being read."""

    versions: tuple[str, ...]
    still_read: tuple[str, ...]


def list_versions(index_dir: Path) -> list[VersionEntry]:
    """All versions, the oldest first.

    Raises:
        IndexUnavailable: There is no index, or a manifest is damaged.
    """
    current = current_version(index_dir)
    found = []
    for name in version_names(index_dir):
        directory = index_dir / VERSIONS / name
        manifest = read_manifest(directory / MANIFEST)
        stats = [(directory / file).stat() for file in manifest.files]
        own = sum(stat.st_size for stat in stats if stat.st_nlink == 1)
        lease = hold_alone(index_dir, name)
        found.append(VersionEntry(name, manifest, name == current, lease is None, own))
        if lease is not None:
            lease.close()
    return found


def roll_back(index_dir: Path, version: str | None = None) -> str:
    """Make another version current, what was removed since included.

    Args:
        index_dir: The index.
        version: Its name; the one before the current one by default.

    Raises:
        NotFound: There is no such version.
        IndexCorrupt: It is damaged.
        IndexBusy: Another change does not end.
    """
    with changing(index_dir):
        current = current_version(index_dir)
        if version is None:
            earlier = list(takewhile(lambda name: name != current, version_names(index_dir)))
            if not earlier:
                raise NotFound(
                    f"{current} is the oldest version of {index_dir}, so there is none to go back "
                    f"to. `whence versions {index_dir}` lists those it has."
                )
            version = earlier[-1]
        reader = IndexReader.open(index_dir, version)
        reader.verify()
        make_current(index_dir, version)
        return version


def clear_versions(index_dir: Path, *, keep: int) -> Cleared:
    """Clear old versions away.

    The current version stays, so do the ``keep`` latest, and those that a reader has open.

    Raises:
        IndexUnavailable: There is no index in the folder.
        IndexBusy: Another change does not end.
        StorageFull: The folder cannot be written.
    """
    with changing(index_dir):
        current = current_version(index_dir)
        discard_change(index_dir)
        with storage_errors(index_dir):
            for left_over in (index_dir / VERSIONS).glob(f"{_GONE}*"):
                shutil.rmtree(left_over)
        names = version_names(index_dir)
        latest = set(names[len(names) - keep :]) if keep else set()
        cleared, still_read = [], []
        for name in names:
            if name != current and name not in latest:
                (cleared if _clear(index_dir, name) else still_read).append(name)
    return Cleared(tuple(cleared), tuple(still_read))


def _clear(index_dir: Path, name: str) -> bool:
    """Whether it could be; a reader that comes meanwhile finds the version gone, and waits."""
    directory = index_dir / VERSIONS / name
    lease = hold_alone(index_dir, name)
    if lease is None and (directory / MANIFEST).exists():
        return False
    with storage_errors(directory):
        gone = directory.with_name(f"{_GONE}{name}")
        directory.rename(gone)
        shutil.rmtree(gone)
    if lease is not None:
        lease.close()
    return True
