"""Remove documents: no query meets them from the next version on (`influence.rows`).

Their rows are listed as removed and their owners summed again; nothing else is rewritten, so it
takes moments. Texts and vectors stay on the disk until the index is compacted.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from influence.change import NextVersion
from influence.errors import InvalidInput, NotFound
from influence.lock import changing
from influence.manifest import Change, CorpusIdentity
from influence.rows import TOMBSTONES, Tombstones
from influence.store import IndexReader
from influence.totals import NO_OWNER, OWNERS, sum_owners

FIELDS = ("id", "title", "source", "owner", "licence", "url")
_NAMED = 5  # of the documents that are not there, so many are named


@dataclass(frozen=True)
class Selection:
    """Documents that meet every condition given; at least one must be.

    Attributes:
        documents: The id is one of these.
        owners: The owner is one of these.
        where: Fields (`FIELDS`) or entries of the metadata, by their text or as JSON.
    """

    documents: Collection[str] = ()
    owners: Collection[str] = ()
    where: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.documents or self.owners or self.where):
            raise InvalidInput(
                "Nothing says which documents are meant. Give a document, an owner or a field."
            )

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether a stored document is meant."""
        return (
            (not self.documents or record["id"] in self.documents)
            and (not self.owners or record["owner"] in self.owners)
            and all(_value(record, name) == value for name, value in self.where.items())
        )


@dataclass(frozen=True)
class Removed:
    """The version without them, and how many they were."""

    version: str
    documents: int
    passages: int


def remove_documents(index_dir: Path, selection: Selection) -> Removed:
    """Publish a version without some documents.

    Args:
        index_dir: The index.
        selection: Which; all of its ids must be there.

    Raises:
        NotFound: One of the ids is not there, or nothing meets the conditions.
        IndexBusy: Another change does not end.
        IndexUnavailable: There is no index, or it is damaged.
        StorageFull: The folder cannot be written.
    """
    wanted = frozenset(selection.documents)
    with changing(index_dir):
        reader = IndexReader.open(index_dir)
        columns = [*FIELDS, "metadata"]
        found = {
            number: record
            for number, record in reader.document_records(columns)
            if selection.holds(record)
        }
        missing = sorted(wanted - {record["id"] for record in found.values()})
        if missing or not found:
            raise NotFound(_not_there(missing, selection, index_dir))
        numbers = np.array(sorted(found), dtype=np.int64)
        ids = [record["id"] for record in found.values()]
        buried = bury(reader, numbers, ids)
        change = Change(
            kind="removed", parent=reader.version, documents=len(ids), passages=buried.passages
        )
        following = NextVersion(reader)
        following.keep_all_but(OWNERS, TOMBSTONES)
        following.write(TOMBSTONES, buried.tombstones.to_bytes())
        totals = sum_owners(
            following.directory,
            reader.manifest.shards,
            reader.dims,
            buried.tombstones,
            known=reader.owners,
            changed={record["owner"] or NO_OWNER for record in found.values()},
        )
        following.write(OWNERS, totals.to_bytes())
        version = following.publish(
            change,
            {"removed": numbers.tolist()},
            removed_rows=len(buried.tombstones.rows),
            corpus=buried.corpus,
        )
    return Removed(version, len(ids), buried.passages)


@dataclass(frozen=True)
class Buried:
    """What is different once some documents are gone: tombstones, counts, passages gone."""

    tombstones: Tombstones
    corpus: CorpusIdentity
    passages: int


def bury(reader: IndexReader, numbers: np.ndarray, ids: Collection[str]) -> Buried:
    """Work out what removing documents changes.

    Args:
        reader: The index.
        numbers: Where the documents are stored.
        ids: Of the same documents.
    """
    rows = np.array(sorted(row for i in ids for row in reader.rows_of(i)), dtype=np.int64)
    gone = [reader.passage(int(row)) for row in rows]
    corpus = reader.manifest.corpus
    return Buried(
        reader.tombstones.with_more(reader.stored_rows(rows), numbers),
        corpus.model_copy(
            update={
                "documents": corpus.documents - len(ids),
                "passages": corpus.passages - len(gone),
                "tokens": corpus.tokens - sum(p.tokens for p in gone),
                "target_tokens": corpus.target_tokens - sum(p.target_tokens for p in gone),
            }
        ),
        len(gone),
    )


def _value(record: Mapping[str, Any], name: str) -> str | None:
    if name in FIELDS:
        return record[name]
    value = json.loads(record["metadata"]).get(name)
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _not_there(missing: list[str], selection: Selection, index_dir: Path) -> str:
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        return (
            f"{', '.join(map(repr, missing[:_NAMED]))}{more}: no such document in {index_dir}"
            f"{' that meets the other conditions' if selection.owners or selection.where else ''}. "
            "Nothing was removed; give the ids of documents that it holds."
        )
    conditions = [f"owner={name}" for name in selection.owners]
    conditions += [f"{name}={value}" for name, value in selection.where.items()]
    return (
        f"No document of {index_dir} has {' and '.join(conditions)}. Nothing was removed; "
        f"give one of {', '.join(FIELDS)} or an entry of the metadata, exactly as it is stored."
    )
