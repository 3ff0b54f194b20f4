"""The Parquet tables of a version: one row for each passage, one for each document.

A document's text is stored once. Of a chat it is told who says which characters of it, so that the
very tokens the model read can be made again from the store.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from influence.documents import Document, Message

ROWS_PER_GROUP = 64  # a document is read by its row group alone

PASSAGE_SCHEMA = pa.schema(
    [
        ("document_id", pa.string()),
        ("number", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("target_tokens", pa.int32()),
        ("loss_nats", pa.float32()),
        ("tokens", pa.int32()),
    ]
)
DOCUMENT_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("source", pa.string()),
        ("owner", pa.string()),
        ("licence", pa.string()),
        ("url", pa.string()),
        ("metadata", pa.string()),
        # Of a chat: who says which characters of the text; null for plain text.
        (
            "turns",
            pa.list_(
                pa.struct([("role", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
            ),
        ),
    ]
)


@dataclass(frozen=True)
class PassageRow:
    """One row of the index, its vector aside."""

    document_id: str
    number: int
    start: int
    end: int
    target_tokens: int
    loss_nats: float
    tokens: int


def save_passages(path: Path, passages: Sequence[PassageRow]) -> None:
    """Write the passages of a shard; the caller gives a temporary name and renames."""
    columns = {name: [getattr(p, name) for p in passages] for name in PASSAGE_SCHEMA.names}
    pq.write_table(pa.table(columns, schema=PASSAGE_SCHEMA), path, compression="zstd")


def save_documents(path: Path, documents: Sequence[Document]) -> None:
    """Write the documents of a shard, likewise."""
    records = [_record(document) for document in documents]
    pq.write_table(
        pa.Table.from_pylist(records, schema=DOCUMENT_SCHEMA),
        path,
        compression="zstd",
        row_group_size=ROWS_PER_GROUP,
    )


def document_of(record: dict[str, Any]) -> Document:
    """The document that a row of the table was made from, equal in every field."""
    fields = dict(record)
    text, turns = fields.pop("text"), fields.pop("turns")
    fields["metadata"] = json.loads(fields["metadata"])
    if turns is None:
        return Document(plain=text, **fields)
    messages = (Message(turn["role"], text[turn["start"] : turn["end"]]) for turn in turns)
    return Document(messages=tuple(messages), **fields)


def _record(document: Document) -> dict[str, Any]:
    record = {
        name: getattr(document, name)
        for name in DOCUMENT_SCHEMA.names
        if name not in ("turns", "metadata")
    }
    record["metadata"] = json.dumps(dict(document.metadata), ensure_ascii=False, sort_keys=True)
    if document.plain is None:
        record["turns"] = [asdict(turn) for turn in document.turns]
    return record
