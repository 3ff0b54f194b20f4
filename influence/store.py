"""Read an index: one published version, memory-mapped, checked against its manifest.

A reader opens only what the manifest lists, and the manifest itself has the sha256 that is part of
the version's name. Opening checks that every file is there in its full size, and hashes them all
where that takes a moment only; beyond `VERIFIED_BYTES` that is left to `verify`. Importing this
module loads neither torch nor faiss.
"""

import json
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence.atomic import file_sha256
from influence.documents import Document, Message, Turn
from influence.errors import IndexCorrupt, IndexUnavailable, NotFound
from influence.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    check_files,
    check_sizes,
    read_manifest,
)
from influence.staging import CURRENT, VERSIONS

VERIFIED_BYTES = 2**30  # an index up to this size is hashed whole whenever it is opened
NO_OWNER = ""  # key of documents without an owner, in arrays of owners


@dataclass(frozen=True)
class StoredDocument:
    """A document as it was indexed; ``rows`` are those of its passages.

    ``turns`` are those of a chat (`Document.turns`), none for plain text.
    """

    id: str
    text: str
    title: str | None
    source: str | None
    owner: str | None
    licence: str | None
    url: str | None
    metadata: dict[str, Any]
    rows: tuple[int, ...]
    turns: tuple[Turn, ...] = ()

    @property
    def as_indexed(self) -> Document:
        """What the indexer cut into passages, so that its tokens can be made again."""
        messages = tuple(Message(t.role, self.text[t.start : t.end]) for t in self.turns)
        return Document(self.id, plain=None if messages else self.text, messages=messages)


@dataclass(frozen=True)
class StoredPassage:
    """One row: its document and the characters ``[start, end)`` of it that carry loss."""

    row: int
    document_id: str
    number: int
    start: int
    end: int
    target_tokens: int
    loss_nats: float

    @property
    def id(self) -> str:
        """``document_id#number``."""
        return f"{self.document_id}#{self.number}"


@dataclass(frozen=True)
class OwnerTotals:
    """Per owner the sum of its passages' vectors; influence is linear, so totals are exact.

    Attributes:
        names: Owners, sorted; `NO_OWNER` stands for documents without one.
        sums: Of vectors before normalisation, ``[O, D]`` float32.
        counts: Passages of each, ``[O]``.
        self_influence: ``Σ ‖z̃‖²`` of each, ``[O]``.
    """

    names: tuple[str, ...]
    sums: np.ndarray
    counts: np.ndarray
    self_influence: np.ndarray


class IndexReader:
    """One version of an index, opened for reading."""

    def __init__(self, index_dir: Path, version: str, manifest: Manifest) -> None:
        self.index_dir = index_dir
        self.version = version
        self.directory = index_dir / VERSIONS / version
        self.manifest = manifest
        self.dims = manifest.vector_dims
        if sum(entry.size_bytes for entry in manifest.files.values()) <= VERIFIED_BYTES:
            check_files(self.directory, manifest)
        else:
            check_sizes(self.directory, manifest)
        self.norms = np.concatenate(
            [self._array(f"vectors/{s.name}.norms.npy", "<f4", s.rows) for s in manifest.shards]
        )
        self._passages = [self._parquet("passages", s).read().to_pydict() for s in manifest.shards]
        self._first_row = np.cumsum([0, *(s.rows for s in manifest.shards)])

    @classmethod
    def open(cls, index_dir: Path) -> "IndexReader":
        """Open the current version.

        Raises:
            IndexUnavailable: There is no index in the folder.
            IndexCorrupt: A file is missing, truncated or altered; the message names it.
            IndexTooNew: Written by a newer format.
        """
        current = index_dir / CURRENT
        if not current.is_file():
            raise IndexUnavailable(
                f"There is no index in {index_dir} (no file {CURRENT}). Build one with "
                f"`whence index CORPUS --model MODEL --out {index_dir}`."
            )
        version = current.read_bytes().decode(errors="replace").strip()
        if not re.fullmatch(r"\d{6,}-[0-9a-f]{12}", version):
            raise IndexCorrupt(
                f"{current} names no version, but {version[:40]!r}. Write the name of one of the "
                f"folders in {index_dir / VERSIONS} into it, or build the index again."
            )
        path = index_dir / VERSIONS / version / MANIFEST
        manifest = read_manifest(path)
        if not version.endswith(f"-{file_sha256(path)[:12]}"):
            raise IndexCorrupt(
                f"{path} was altered: its sha256 is not that of the version's name. Restore it "
                "from a backup, or build the index again."
            )
        return cls(index_dir, version, manifest)

    def __len__(self) -> int:
        return self.manifest.rows

    def vector_shards(self) -> list[np.ndarray]:
        """Unit vectors, memory-mapped fp16 ``[n, D]``, in the order of the rows."""
        return [
            self._array(f"vectors/{s.name}.npy", "<f2", s.rows, self.dims)
            for s in self.manifest.shards
        ]

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Unit vectors of some rows, ``[n, D]`` float32."""
        shards = self.vector_shards()
        out = np.empty((len(rows), self.dims), dtype=np.float32)
        for position, row in enumerate(rows):
            shard, offset = self._locate(int(row))
            out[position] = shards[shard][offset]
        return out

    def passage(self, row: int) -> StoredPassage:
        """The passage of a row.

        Raises:
            NotFound: No such row.
        """
        if not 0 <= row < len(self):
            raise NotFound(f"Row {row} is not in this index, which has {len(self)} rows.")
        shard, offset = self._locate(row)
        columns = self._passages[shard]
        return StoredPassage(row, **{name: values[offset] for name, values in columns.items()})

    def document(self, document_id: str) -> StoredDocument:
        """A document with its text and the rows of its passages.

        Raises:
            NotFound: No document of this id.
        """
        place = self._documents.get(document_id)
        if place is None:
            raise NotFound(
                f"Document {document_id!r} is not in this index. `whence info` tells what it holds."
            )
        shard, offset = place
        stored = self._document_files[shard]
        group = 0
        while offset >= stored.metadata.row_group(group).num_rows:
            offset -= stored.metadata.row_group(group).num_rows
            group += 1
        record = stored.read_row_group(group).slice(offset, 1).to_pylist()[0]
        record["metadata"] = json.loads(record["metadata"])
        record["turns"] = tuple(Turn(**turn) for turn in record.get("turns") or ())
        return StoredDocument(**record, rows=self._rows_of.get(document_id, ()))

    def document_ids(self) -> list[str]:
        """All documents, in the order of the corpus."""
        return list(self._documents)

    @cached_property
    def row_owners(self) -> np.ndarray:
        """Owner of each row, `NO_OWNER` where there is none; ``[N]`` of str."""
        return self._row_attribute("owner")

    @cached_property
    def row_sources(self) -> np.ndarray:
        """Source of each row, empty where there is none; ``[N]`` of str."""
        return self._row_attribute("source")

    def rows_where(
        self, *, owners: Sequence[str] | None = None, sources: Sequence[str] | None = None
    ) -> np.ndarray:
        """Rows whose owner *and* source are among those given; ``[N]`` of bool."""
        rows = np.ones(len(self), dtype=bool)
        if owners is not None:
            rows &= np.isin(self.row_owners, list(owners))
        if sources is not None:
            rows &= np.isin(self.row_sources, list(sources))
        return rows

    @cached_property
    def owners(self) -> OwnerTotals:
        """Summed vectors per owner."""
        path = self._path("owners.npz")
        try:
            with np.load(path, allow_pickle=False) as stored:
                return OwnerTotals(
                    tuple(str(name) for name in stored["names"]),
                    stored["sums"],
                    stored["counts"],
                    stored["self_influence"],
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(path) from error

    @property
    def basis_path(self) -> Path:
        """The file for `influence.basis.load_basis`."""
        return self._path("basis.safetensors")

    def verify(self) -> None:
        """Hash every file.

        Raises:
            IndexCorrupt: One differs from the manifest; the message names it.
        """
        check_files(self.directory, self.manifest)

    def _path(self, name: str) -> Path:
        if name not in self.manifest.files:
            raise IndexCorrupt(
                f"{self.directory / MANIFEST} does not list {name}. Restore it from a backup, or "
                "build the index again."
            )
        return self.directory / name

    def _array(self, name: str, dtype: str, *shape: int) -> np.ndarray:
        """Memory-mapped, and of the dtype and shape that the manifest promises."""
        path = self._path(name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _unreadable(path) from error
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise _unreadable(path)
        return array

    def _parquet(self, folder: str, shard: Shard) -> pq.ParquetFile:
        path = self._path(f"{folder}/{shard.name}.parquet")
        try:
            return pq.ParquetFile(path)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path) from error

    def _locate(self, row: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._first_row, row, side="right")) - 1
        return shard, row - int(self._first_row[shard])

    @cached_property
    def _document_files(self) -> list[Any]:
        return [self._parquet("documents", s) for s in self.manifest.shards]

    @cached_property
    def _documents(self) -> dict[str, tuple[int, int]]:
        return {
            document_id: (shard, offset)
            for shard, file in enumerate(self._document_files)
            for offset, document_id in enumerate(file.read(columns=["id"])["id"].to_pylist())
        }

    @cached_property
    def _rows_of(self) -> dict[str, tuple[int, ...]]:
        rows: dict[str, list[int]] = {}
        documents = (d for columns in self._passages for d in columns["document_id"])
        for row, document_id in enumerate(documents):
            rows.setdefault(document_id, []).append(row)
        return {document_id: tuple(found) for document_id, found in rows.items()}

    def _row_attribute(self, column: str) -> np.ndarray:
        value_of = {
            record["id"]: record[column] or ""
            for file in self._document_files
            for record in file.read(columns=["id", column]).to_pylist()
        }
        return np.array(
            [value_of[d] for columns in self._passages for d in columns["document_id"]], dtype=str
        )


def _unreadable(path: Path) -> IndexCorrupt:
    return IndexCorrupt(
        f"{path} is not what the indexer wrote. Restore it from a backup, or build the index again."
    )
