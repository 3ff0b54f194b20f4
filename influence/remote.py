"""The files of an index at an `fsspec` URL, such as ``s3://bucket/index``: as in a folder.

What is downloaded counts only if its sha256 is the manifest's, and the manifest's is in the name of
the version. Importing this module loads no backend.
"""

import hashlib
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from influence.atomic import replacing, storage_errors
from influence.errors import IndexCorrupt, IndexUnavailable, InvalidInput, StorageUnreachable
from influence.manifest import MANIFEST, FileEntry, Manifest, read_manifest
from influence.versions import CURRENT, VERSIONS

CHUNK_BYTES = 2**22
_VERSION = re.compile(r"\d{6,}-[0-9a-f]{12}")


def is_url(location: Path | str) -> bool:
    """Whether an index is elsewhere, rather than in a folder of this machine."""
    return re.match(r"[a-z][a-z0-9+.-]*://", str(location)) is not None


def folder_of(location: str) -> Path:
    """A folder of this machine, for what is done in a folder alone.

    Raises:
        InvalidInput: It is a URL.
    """
    if is_url(location):
        raise InvalidInput(
            f"{location} is a URL, and an index is written in a folder: an object store has "
            "neither the locks nor the renames that keep it whole. Do this in a folder (`whence "
            f"pull {location} FOLDER`, if the index is at the URL), then `whence push FOLDER "
            f"{location}`."
        )
    return Path(location)


class Remote:
    """The files of an index at a URL.

    Raises:
        StorageUnreachable: The URL makes no sense, or its backend is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        with self._errors("opened"):
            self._files, self._root = fsspec.core.url_to_fs(self.url)
            self._files.invalidate_cache()  # what another process wrote meanwhile counts

    def current(self) -> str:
        """The version that readers open.

        Raises:
            IndexUnavailable: There is no index.
            IndexCorrupt: `CURRENT` names no version.
        """
        try:
            with self._errors("read"):
                name = self._files.cat_file(self._path(CURRENT)).decode(errors="replace").strip()
        except FileNotFoundError:
            raise IndexUnavailable(
                f"There is no index at {self.url} (no {CURRENT}). Put one there with "
                f"`whence push INDEX {self.url}`."
            ) from None
        if not _VERSION.fullmatch(name):
            raise IndexCorrupt(
                f"{self.url}/{CURRENT} names no version, but {name[:40]!r}. Push the index again."
            )
        return name

    def manifest(self, version: str, into: Path) -> Manifest:
        """Download a version's manifest.

        Raises:
            IndexCorrupt: It is missing or altered.
        """
        name = f"{VERSIONS}/{version}/{MANIFEST}"
        digest = self.download(name, into)
        if not version.endswith(f"-{digest[:12]}"):
            into.unlink()
            raise self._altered(name, "its sha256 is not that of the version's name")
        return read_manifest(into)

    def fetch(self, version: str, name: str, entry: FileEntry, into: Path) -> None:
        """Download a file of a version if it is what the manifest says.

        Raises:
            IndexCorrupt: It is missing, truncated or altered; the message names it.
        """
        path = f"{VERSIONS}/{version}/{name}"
        with replacing(into) as temporary:
            digest = self.download(path, temporary)
            if (size := temporary.stat().st_size) != entry.size_bytes:
                raise self._altered(path, f"it has {size} bytes, not {entry.size_bytes}")
            if digest != entry.sha256:
                raise self._altered(path, "its sha256 is not that of the manifest")

    def download(self, name: str, into: Path) -> str:
        """Download a file; its sha256.

        Raises:
            IndexCorrupt: It is missing.
        """
        digest = hashlib.sha256()
        try:
            with self._errors("read"), self._files.open(self._path(name), "rb") as source:
                # Not one error for both ends: a full disk is not an unreachable URL.
                with storage_errors(into):
                    target = into.open("wb")
                with target:
                    while chunk := source.read(CHUNK_BYTES):
                        digest.update(chunk)
                        with storage_errors(into):
                            target.write(chunk)
        except FileNotFoundError:
            raise self._altered(name, "it is missing") from None
        return digest.hexdigest()

    def size(self, name: str) -> int | None:
        """Of a file in bytes; None where it is not there."""
        try:
            with self._errors("read"):
                return int(self._files.info(self._path(name))["size"])
        except FileNotFoundError:
            return None

    def upload(self, name: str, source: Path) -> None:
        """Write a file; one that is not whole afterwards is an error.

        Raises:
            StorageUnreachable: It cannot be written.
        """
        target = self._path(name)
        with self._errors("written"):
            if isinstance(self._files, LocalFileSystem):  # its own copies are visible in part
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                with replacing(Path(target)) as temporary:
                    shutil.copyfile(source, temporary)
            else:
                self._files.put_file(str(source), target)
                self._files.invalidate_cache(self._files._parent(target))

    def copy(self, name: str, to: str) -> None:
        """Copy a file within the URL, on its own side where the backend can."""
        with self._errors("written"):
            if isinstance(self._files, LocalFileSystem):
                self.upload(to, Path(self._path(name)))
            else:
                self._files.cp_file(self._path(name), self._path(to))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _altered(self, name: str, how: str) -> IndexCorrupt:
        return IndexCorrupt(
            f"{self.url}/{name} is not what was pushed: {how}. Push the index again from a sound "
            "copy."
        )

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        """Whatever a backend raises, in one sentence; a missing file is left to the caller."""
        botocore = sys.modules.get("botocore.exceptions")
        kinds: tuple[Any, ...] = (OSError, ImportError, ValueError)
        if botocore is not None:
            kinds += (botocore.BotoCoreError,)
        try:
            yield
        except FileNotFoundError:
            raise
        except kinds as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StorageUnreachable(
                f"{self.url} cannot be {done}: {reason[:300]}. Check the URL, the network and the "
                "credentials; for s3:// install whence with its extra s3."
            ) from error
