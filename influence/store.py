"""Read an index: one published version, memory-mapped, checked against its manifest.

A reader opens only what the manifest lists, and the manifest itself has the sha256 that is part of
the version's name. Opening checks that every file is there in its full size, and hashes them all
where that takes a moment only; beyond `VERIFIED_BYTES` that is left to `verify`.

A reader stays with the version that it opened, which is kept for as long as the reader lives
(`influence.versions`). Rows that were removed are not there for it: its rows are those left,
numbered from 0 (`influence.rows`). Importing this module loads neither torch nor faiss.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence.atomic import file_sha256
from influence.document_files import DocumentFiles
from influence.documents import Document
from influence.errors import IndexCorrupt, IndexMismatch, NotFound
from influence.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    check_files,
    check_sizes,
    read_manifest,
)
from influence.rows import TOMBSTONES, LiveRows, Tombstones
from influence.tables import document_of
from influence.totals import NO_OWNER, OWNERS, OwnerTotals
from influence.vector_file import VectorFile
from influence.versions import VERSIONS, Lease, hold, hold_current

__all__ = [
    "NO_OWNER",
    "IndexReader",
    "OwnerTotals",
    "StoredDocument",
    "StoredPassage",
    "check_built_from",
]

if TYPE_CHECKING:
    from influence.model import LoadedModel

VERIFIED_BYTES = 2**30  # an index up to this size is hashed whole whenever it is opened


@dataclass(frozen=True)
class StoredDocument(Document):
    """A document as it was indexed, messages included; ``rows`` are those of its passages."""

    rows: tuple[int, ...] = ()


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
    tokens: int

    @property
    def id(self) -> str:
        """``document_id#number``."""
        return f"{self.document_id}#{self.number}"


class IndexReader:
    """One version of an index, opened for reading; see `open`."""

    def __init__(
        self, index_dir: Path, version: str, manifest: Manifest, lease: Lease | None = None
    ) -> None:
        self.index_dir = index_dir
        self.version = version
        self.directory = index_dir / VERSIONS / version
        self.manifest = manifest
        self.dims = manifest.vector_dims
        self._lease = lease
        if sum(entry.size_bytes for entry in manifest.files.values()) <= VERIFIED_BYTES:
            check_files(self.directory, manifest)
        else:
            check_sizes(self.directory, manifest)
        self.tombstones = self._tombstones()
        self._live = LiveRows(manifest.rows, self.tombstones.rows)
        self._first_row = np.cumsum([0, *(s.rows for s in manifest.shards)])
        bounds = zip(self._first_row, self._first_row[1:], strict=False)
        self.norms = np.concatenate(
            [
                self.stored_norms(number)[self._live.mask(int(first), int(end))]
                for number, (first, end) in enumerate(bounds)
            ]
        )
        self._passages = [self._parquet("passages", s).read().to_pydict() for s in manifest.shards]

    @classmethod
    def open(cls, index_dir: Path, version: str | None = None) -> "IndexReader":
        """Open the current version, or another one.

        Raises:
            IndexUnavailable: There is no index in the folder.
            NotFound: It has no such version.
            IndexCorrupt: A file is missing, truncated or altered; the message names it.
            IndexTooNew: Written by a newer format.
        """
        if version is None:
            version, lease = hold_current(index_dir)
        elif (lease := hold(index_dir, version)) is None:
            raise NotFound(
                f"{index_dir} has no version {version!r}. `whence versions {index_dir}` lists "
                "those it has."
            )
        path = index_dir / VERSIONS / version / MANIFEST
        manifest = read_manifest(path)
        if not version.endswith(f"-{file_sha256(path)[:12]}"):
            raise IndexCorrupt(
                f"{path} was altered: its sha256 is not that of the version's name. Restore it "
                "from a backup, or build the index again."
            )
        return cls(index_dir, version, manifest, lease)

    def close(self) -> None:
        """Let the version be cleared away; a reader that is forgotten does so by itself."""
        if self._lease is not None:
            self._lease.close()

    def __len__(self) -> int:
        return len(self._live)

    def vector_shards(self) -> list[np.ndarray]:
        """Unit vectors, memory-mapped fp16 ``[n, D]``, in the order of the rows."""
        return list(self._left(self.stored_shards()))

    def vector_files(self) -> list[VectorFile]:
        """As `vector_shards`, but read from the disk at each use: for a process that goes on."""
        return list(self._left(self._files))

    def vectors(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Unit vectors of some rows, ``[n, D]`` float32.

        Raises:
            IndexCorrupt: A file is not what it was when it was opened.
        """
        out = np.empty((len(rows), self.dims), dtype=np.float32)
        for position, row in enumerate(rows):
            shard, offset = self._locate(int(row))
            out[position] = self._files[shard].take(np.array([offset]))[0]
        return out

    def stored_shards(self) -> list[np.ndarray]:
        """As `vector_shards`, but every shard as it is stored, with rows that were removed."""
        return [
            self._array(f"vectors/{s.name}.npy", "<f2", s.rows, self.dims)
            for s in self.manifest.shards
        ]

    def stored_norms(self, shard: int) -> np.ndarray:
        """Norms of a whole shard, by its number, ``[n]`` float32."""
        entry = self.manifest.shards[shard]
        return self._array(f"vectors/{entry.name}.norms.npy", "<f4", entry.rows)

    def stored_rows(self, rows: np.ndarray) -> np.ndarray:
        """Where rows stand among all that are stored; what was derived from shards counts so."""
        return self._live.stored(rows)

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
        return self._stored_document(self._document_files.record(place))

    def documents(self) -> Iterator[StoredDocument]:
        """All documents with their texts, in the order of the corpus; a few in memory at a time."""
        for _, record in self.document_records():
            yield self._stored_document(record)

    def document_records(
        self, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The documents as they are stored (`influence.tables`), with the number of each there.

        Args:
            columns: Of the table; all of them by default.
        """
        removed = set(self.tombstones.documents.tolist())
        for number, record in enumerate(self._document_files.records(columns)):
            if number not in removed:
                yield number, record

    def rows_of(self, document_id: str) -> tuple[int, ...]:
        """Rows of a document's passages; none for a document that is not here."""
        return self._rows_of.get(document_id, ())

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
        path = self._path(OWNERS)
        try:
            return OwnerTotals.load(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise _unreadable(path) from error

    @property
    def basis_path(self) -> Path:
        """The file for `influence.basis.basis_of`."""
        return self._path("basis.safetensors")

    def verify(self) -> None:
        """Hash every file.

        Raises:
            IndexCorrupt: One differs from the manifest; the message names it.
        """
        check_files(self.directory, self.manifest)

    def _left(self, shards: Sequence[Any]) -> Iterator[Any]:
        """The runs of rows that were not removed, of shards in memory or on the disk."""
        bounds = zip(self._first_row, self._first_row[1:], strict=False)
        for stored, (first, end) in zip(shards, bounds, strict=True):
            for run in self._live.runs(int(first), int(end)):
                yield stored[run]

    @cached_property
    def _files(self) -> list[VectorFile]:
        return [
            VectorFile(self._path(f"vectors/{shard.name}.npy"), array)
            for shard, array in zip(self.manifest.shards, self.stored_shards(), strict=True)
        ]

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

    def _tombstones(self) -> Tombstones:
        if TOMBSTONES not in self.manifest.files:
            return Tombstones.none()
        path = self._path(TOMBSTONES)
        try:
            return Tombstones.load(path)
        except ValueError as error:
            raise _unreadable(path) from error

    def _locate(self, row: int) -> tuple[int, int]:
        """The shard of a row, and its place there."""
        stored = int(self._live.stored(np.array([row]))[0])
        shard = int(np.searchsorted(self._first_row, stored, side="right")) - 1
        return shard, stored - int(self._first_row[shard])

    def _row_documents(self) -> Iterator[str]:
        """The document of each row."""
        live = self._live.mask()
        stored = (d for columns in self._passages for d in columns["document_id"])
        return (document_id for document_id, left in zip(stored, live, strict=True) if left)

    @cached_property
    def _document_files(self) -> DocumentFiles:
        shards = self.manifest.shards
        return DocumentFiles([self._path(f"documents/{s.name}.parquet") for s in shards])

    @cached_property
    def _documents(self) -> dict[str, int]:
        """Where each document is stored."""
        return {record["id"]: number for number, record in self.document_records(["id"])}

    @cached_property
    def _rows_of(self) -> dict[str, tuple[int, ...]]:
        rows: dict[str, list[int]] = {}
        for row, document_id in enumerate(self._row_documents()):
            rows.setdefault(document_id, []).append(row)
        return {document_id: tuple(found) for document_id, found in rows.items()}

    def _stored_document(self, record: dict[str, Any]) -> StoredDocument:
        document = document_of(record)
        values = {field.name: getattr(document, field.name) for field in fields(document)}
        return StoredDocument(**values, rows=self.rows_of(document.id))

    def _row_attribute(self, column: str) -> np.ndarray:
        value_of = {
            record["id"]: record[column] or ""
            for _, record in self.document_records(["id", column])
        }
        return np.array([value_of[d] for d in self._row_documents()], dtype=str)


def check_built_from(reader: IndexReader, loaded: "LoadedModel") -> None:
    """See that an index and a model belong together.

    Raises:
        IndexMismatch: The index was built from other weights or with another tokenizer.
    """
    built = reader.manifest.model
    for what, expected, found in (
        ("weights", built.weights_sha256, loaded.weights_sha256),
        ("tokenizer", built.tokenizer_sha256, loaded.tokenizer_sha256),
    ):
        if expected != found:
            raise IndexMismatch(
                index_dir=str(reader.index_dir),
                built_with=f"{built.name} ({what} {expected[:12]})",
                loaded=f"{loaded.name} ({what} {found[:12]})",
            )


def _unreadable(path: Path) -> IndexCorrupt:
    return IndexCorrupt(
        f"{path} is not what the indexer wrote. Restore it from a backup, or build the index again."
    )
