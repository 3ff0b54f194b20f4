"""Make what is derived again from the vectors, where it is damaged."""

from pathlib import Path

from influence.atomic import file_sha256, write_bytes
from influence.change import SEARCH, NextVersion
from influence.errors import IndexCorrupt
from influence.lock import changing
from influence.manifest import MANIFEST, Change, Manifest, read_manifest
from influence.rows import TOMBSTONES, Tombstones
from influence.store import IndexReader
from influence.totals import OWNERS, sum_owners
from influence.versions import VERSIONS, hold_current


def repair_index(index_dir: Path) -> tuple[str, tuple[str, ...]]:
    """Hash every file of the current version, and make damaged ones again that are derived.

    The owners' sums come out with the same bytes on the same kind of machine, and are put in their
    place; where the last bits differ, or a search structure was damaged, a version is published
    that has the new sums, or is searched exactly.

    Returns:
        The current version afterwards, and the files that were damaged.

    Raises:
        IndexCorrupt: A file is damaged that cannot be derived; the message names it.
        IndexBusy: Another change does not end.
    """
    with changing(index_dir):
        version, _lease = hold_current(index_dir)
        directory = index_dir / VERSIONS / version
        manifest = read_manifest(directory / MANIFEST)
        damaged = _damaged(directory, manifest)
        if not version.endswith(f"-{file_sha256(directory / MANIFEST)[:12]}"):
            damaged.insert(0, MANIFEST)
        for name in damaged:
            if name != OWNERS and not name.startswith(SEARCH):
                raise IndexCorrupt(
                    f"{directory / name} is damaged, and it cannot be derived from other files. "
                    "Restore it from a backup, go back with `whence rollback`, or build the index "
                    "again."
                )
        if not damaged:
            return version, ()
        if OWNERS in damaged:
            tombstones = (
                Tombstones.load(directory / TOMBSTONES)
                if TOMBSTONES in manifest.files
                else Tombstones.none()
            )
            totals = sum_owners(directory, manifest.shards, manifest.vector_dims, tombstones)
            write_bytes(directory / OWNERS, totals.to_bytes())
            if damaged == [OWNERS] and not _damaged(directory, manifest):
                return version, (OWNERS,)
        reader = IndexReader(index_dir, version, _without(manifest, damaged))
        following = NextVersion(reader)
        following.keep_all_but(OWNERS, SEARCH)
        following.write(OWNERS, (directory / OWNERS).read_bytes())
        change = Change(kind="repaired", parent=version)
        return following.publish(change, {}), tuple(damaged)


def _damaged(directory: Path, manifest: Manifest) -> list[str]:
    found = []
    for name, entry in manifest.files.items():
        path = directory / name
        if not path.is_file() or file_sha256(path) != entry.sha256:
            found.append(name)
    return found


def _without(manifest: Manifest, damaged: list[str]) -> Manifest:
    files = {name: entry for name, entry in manifest.files.items() if name not in damaged}
    return manifest.model_copy(update={"files": files})
