"""The next version of an index, made from one that is there.

Files that stay the same are hard links, so a change costs what it changes; where the file system
has no links they are copied. What is derived from rows that moved is left out and made again by
whoever needs it. Everything here happens under `influence.lock.changing`.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from influence.atomic import file_sha256, flush_to_disk, storage_errors, write_bytes
from influence.manifest import MANIFEST, Change, FileEntry, plan_sha256
from influence.store import IndexReader
from influence.versions import add_version, make_current

CHANGING = "changing"
SEARCH = "search/"  # derived from vectors, by the numbers under which rows are stored


class NextVersion:
    """A version in the making; nobody sees it before `publish`.

    Args:
        base: The version that is changed.
    """

    def __init__(self, base: IndexReader) -> None:
        self.base = base
        self.directory = base.index_dir / CHANGING
        self.files: dict[str, FileEntry] = {}
        discard_change(base.index_dir)

    def keep(self, *names: str) -> None:
        """Take files of the base over as they are, damage that has not been noticed included."""
        for name in names:
            self._link(self.base.directory / name, name)
            self.files[name] = self.base.manifest.files[name]

    def keep_all_but(self, *left_out: str) -> None:
        """Take every file over whose name does not begin like one of these."""
        self.keep(*(name for name in self.base.manifest.files if not name.startswith(left_out)))

    def keep_search(self) -> None:
        """Take over what a search derived from vectors that stay: it is in no manifest."""
        folder = self.base.directory / SEARCH
        for path in (*folder.rglob("*.npy"), *folder.rglob("*.json")):
            name = str(path.relative_to(self.base.directory))
            if name not in self.files:
                self._link(path, name)

    def take(self, source: Path, name: str) -> None:
        """Take a file over from elsewhere in the index, under its name in the version."""
        self._link(source, name)
        self._describe(name)

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the version."""
        path = self._place(name)
        write_bytes(path, content)
        self._describe(name)

    def publish(self, change: Change, plan: Mapping[str, Any], **manifest: Any) -> str:
        """Make the folder a version and the version current.

        Args:
            change: What was done, for the history.
            plan: Everything that decides the bytes of the version.
            manifest: Fields of the manifest that differ from those of the base.

        Returns:
            The name of the version.
        """
        described = self.base.manifest.model_copy(
            update={
                "plan_sha256": plan_sha256({**plan, "change": change.model_dump()}),
                "history": (*self.base.manifest.history, change),
                "files": dict(sorted(self.files.items())),
                **manifest,
            }
        )
        content = described.to_bytes()
        write_bytes(self.directory / MANIFEST, content)
        with storage_errors(self.directory):
            for folder in {path.parent for path in self.directory.rglob("*")}:
                flush_to_disk(folder)
        version = add_version(self.base.index_dir, self.directory, content)
        make_current(self.base.index_dir, version)
        return version

    def _link(self, source: Path, name: str) -> None:
        target = self._place(name)
        with storage_errors(target):
            try:
                os.link(source, target)
            except OSError:  # another device, a file system without links, too many of them
                shutil.copyfile(source, target)
                flush_to_disk(target)

    def _place(self, name: str) -> Path:
        path = self.directory / name
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _describe(self, name: str) -> None:
        path = self.directory / name
        self.files[name] = FileEntry(size_bytes=path.stat().st_size, sha256=file_sha256(path))


def discard_change(index_dir: Path) -> None:
    """Clear away what a change left over that was killed."""
    directory = index_dir / CHANGING
    with storage_errors(directory):
        if directory.exists():
            shutil.rmtree(directory)
