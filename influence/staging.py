"""An index under construction: shards that are whole or absent, published in one rename.

    INDEX/building/plan.json      what is being built; another plan is refused
    INDEX/building/shards/00000.json   written last of a shard: its rows and the sha256 of its files
    INDEX/versions/000001-…/      the published version, after `publish`
    INDEX/CURRENT                 names the version that readers open

A process killed at any moment leaves the published versions untouched and every finished shard in
place; the next run with the same plan continues after them.
"""

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from influence.atomic import (
    TEMPORARY,
    file_sha256,
    replacing,
    storage_errors,
    write_bytes,
)
from influence.documents import Document
from influence.errors import BuildConflict
from influence.manifest import MANIFEST, FileEntry, Manifest, Shard
from influence.tables import PassageRow, save_documents, save_passages
from influence.versions import PLAN, SHARD_RECORDS, add_version, make_current

BUILDING = "building"


class Staging:
    """The folder in which one build grows."""

    def __init__(self, index_dir: Path, directory: Path) -> None:
        self.index_dir = index_dir
        self.directory = directory

    @classmethod
    def open(
        cls,
        index_dir: Path,
        plan: Mapping[str, Any],
        *,
        restart: bool = False,
        is_alone: bool = True,
    ) -> "Staging":
        """Begin a build, continue the one that was interrupted, or join the one that is running.

        Args:
            index_dir: The index folder; made if it is not there.
            plan: Everything that decides the result, as JSON values.
            restart: Throw an unfinished build away first.
            is_alone: Nobody else works on it, so what looks abandoned is.

        Raises:
            BuildConflict: The unfinished build there has another plan.
            StorageFull: The folder cannot be written.
        """
        directory = index_dir / BUILDING
        plan_file = directory / PLAN
        with storage_errors(index_dir):
            if restart and is_alone:
                plan_file.unlink(missing_ok=True)
            if directory.exists() and not plan_file.exists():
                # Nothing says what was built here: thrown away above or by a run that was killed
                # while doing so.
                shutil.rmtree(directory)
            if is_alone:
                for abandoned in (*index_dir.glob(TEMPORARY), *directory.rglob(TEMPORARY)):
                    abandoned.unlink(missing_ok=True)
            for name in ("passages", "documents", "vectors", SHARD_RECORDS):
                (directory / name).mkdir(parents=True, exist_ok=True)
        described = _as_json(plan)
        if plan_file.exists():
            found = json.loads(plan_file.read_bytes())
            if different := sorted(_differences(found, described)):
                raise BuildConflict(
                    f"{directory} holds an unfinished build that differs in "
                    f"{', '.join(different)}. Give the same settings to continue it, or --restart "
                    "to throw it away."
                )
        else:
            write_bytes(plan_file, json.dumps(described, indent=1, sort_keys=True).encode())
        return cls(index_dir, directory)

    @staticmethod
    def discard(index_dir: Path, plan: Mapping[str, Any]) -> None:
        """Throw the work of this plan away, finished or not; that of another is left alone."""
        staging = Staging(index_dir, index_dir / BUILDING)
        if staging.is_unfinished(plan):
            with storage_errors(staging.directory):
                (staging.directory / PLAN).unlink()  # without it the rest is nobody's
                shutil.rmtree(staging.directory)

    def is_unfinished(self, plan: Mapping[str, Any]) -> bool:
        """Whether the build of this plan is still here, and not published yet."""
        plan_file = self.directory / PLAN
        return plan_file.exists() and json.loads(plan_file.read_bytes()) == _as_json(plan)

    @contextmanager
    def file(self, name: str) -> Iterator[Path]:
        """Write one file of the version whole or not at all."""
        with replacing(self.directory / name) as temporary:
            yield temporary

    def has(self, name: str) -> bool:
        """Whether a file of the version is there."""
        return (self.directory / name).exists()

    def shard_rows(self, number: int) -> int | None:
        """Rows of a finished shard whose files are intact; None where it must be written."""
        if not self.has_shard(number):
            return None
        described = self.shard_record(number)
        for name, digest in described["files"].items():
            path = self.directory / name
            if not path.exists() or file_sha256(path) != digest:
                return None
        return described["rows"]

    def has_shard(self, number: int) -> bool:
        """Whether a shard is finished; its files are not looked at."""
        return self._record(number).exists()

    def finished_shards(self) -> set[int]:
        """Numbers of the finished shards; their files are not looked at."""
        names = (path.stem for path in (self.directory / SHARD_RECORDS).glob("*.json"))
        return {int(name) for name in names if name.isdecimal()}

    def forget_shard(self, number: int) -> None:
        """Have a shard written again."""
        self._record(number).unlink(missing_ok=True)

    def shard_record(self, number: int) -> dict[str, Any]:
        """What `write_shard` recorded."""
        return json.loads(self._record(number).read_bytes())

    def _record(self, number: int) -> Path:
        return self.directory / SHARD_RECORDS / f"{shard_name(number)}.json"

    def write_shard(
        self,
        number: int,
        vectors: np.ndarray,
        passages: Sequence[PassageRow],
        documents: Sequence[Document],
        record: Mapping[str, Any],
    ) -> None:
        """Write a shard's files, its record last.

        Args:
            number: Of the shard, from 0.
            vectors: Before normalisation, ``[n, D]`` float32, finite, none of norm 0.
            passages: The ``n`` rows.
            documents: Those whose first passage lies in this shard.
            record: Kept beside the shard and handed back by `shard_record`.
        """
        name = shard_name(number)
        written = self.write_vectors(name, vectors)
        with self.file(f"passages/{name}.parquet") as temporary:
            save_passages(temporary, passages)
        with self.file(f"documents/{name}.parquet") as temporary:
            save_documents(temporary, documents)
        written += [f"passages/{name}.parquet", f"documents/{name}.parquet"]
        digests = {file: file_sha256(self.directory / file) for file in written}
        described = {**record, "rows": len(vectors), "files": digests}
        write_bytes(self._record(number), json.dumps(described, sort_keys=True).encode())

    def write_vectors(self, name: str, vectors: np.ndarray) -> list[str]:
        """Write the unit vectors and norms of a shard.

        Args:
            name: Of the shard.
            vectors: Before normalisation, ``[n, D]`` float32, finite, none of norm 0.

        Returns:
            The names of the two files.
        """
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        arrays = {
            f"vectors/{name}.npy": (vectors / norms[:, None]).astype(np.float16),
            f"vectors/{name}.norms.npy": norms.astype(np.float32),
        }
        for file, array in arrays.items():
            with self.file(file) as temporary:
                _save_array(temporary, array)
        return list(arrays)

    def vectors(self, shards: Sequence[Shard]) -> list[np.ndarray]:
        """Unit vectors of finished shards, memory-mapped fp16 ``[n, D]``."""
        paths = [self.directory / f"vectors/{shard.name}.npy" for shard in shards]
        return [np.load(path, mmap_mode="r", allow_pickle=False) for path in paths]

    def describe_files(self, shards: Sequence[Shard], extra: Sequence[str]) -> dict[str, FileEntry]:
        """Entries of the manifest for every file of the version, in a fixed order."""
        names = [
            f"{folder}/{shard.name}{suffix}"
            for shard in shards
            for folder, suffix in (
                ("documents", ".parquet"),
                ("passages", ".parquet"),
                ("vectors", ".norms.npy"),
                ("vectors", ".npy"),
            )
        ]
        return {
            name: FileEntry(
                size_bytes=(self.directory / name).stat().st_size,
                sha256=file_sha256(self.directory / name),
            )
            for name in [*extra, *names]
        }

    def publish(self, manifest: Manifest) -> str:
        """Write the manifest, rename the folder to a version, and point CURRENT at it.

        Returns:
            The version's name: its number and the first 12 digits of the manifest's sha256.
        """
        content = manifest.to_bytes()
        write_bytes(self.directory / MANIFEST, content)
        name = add_version(self.index_dir, self.directory, content)
        make_current(self.index_dir, name)
        return name


def shard_name(number: int) -> str:
    """By which its files are called."""
    return f"{number:05d}"


def _as_json(plan: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(plan))


def _differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """Dotted names of the entries in which two plans differ."""
    if found == wanted:
        return []
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return [name]
    below = f"{name}." if name else ""
    return [
        different
        for key in {*found, *wanted}
        for different in _differences(found.get(key), wanted.get(key), f"{below}{key}")
    ]


def _save_array(path: Path, array: np.ndarray) -> None:
    content = io.BytesIO()  # numpy's own writing to a file does not say that the disk is full
    np.save(content, np.ascontiguousarray(array), allow_pickle=False)
    path.write_bytes(content.getbuffer())
