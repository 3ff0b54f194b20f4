"""Rewrite an index without what was removed from it, and clear away whatever still holds that."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence.change import SEARCH, NextVersion
from influence.errors import InvalidInput
from influence.lock import changing
from influence.manifest import Change, Shard
from influence.rows import TOMBSTONES, LiveRows
from influence.store import IndexReader
from influence.tables import ROWS_PER_GROUP


def compact_index(index_dir: Path) -> str:
    """Publish a version whose files hold nothing that was removed.

    Shards from which nothing was removed are shared with the version before. Earlier versions still
    hold the removed documents, until `influence.retention.clear_versions`.

    Args:
        index_dir: The index.

    Returns:
        The name of the version; the current one where nothing was removed since the last time.

    Raises:
        InvalidInput: Nothing is left.
        IndexBusy: Another change does not end.
        IndexUnavailable: There is no index, or it is damaged.
        StorageFull: The folder cannot be written.
    """
    with changing(index_dir):
        reader = IndexReader.open(index_dir)
        reader.verify()  # or damage would be written anew, with a hash that matches it
        if not (len(reader.tombstones.rows) or len(reader.tombstones.documents)):
            return reader.version
        if not len(reader):
            raise InvalidInput(
                f"Every passage of {index_dir} was removed, and an index holds at least one. "
                "Delete the folder to have them gone."
            )
        following = NextVersion(reader)
        shards = _compacted_shards(reader, following)
        following.keep_all_but("documents/", "passages/", "vectors/", SEARCH, TOMBSTONES)
        change = Change(
            kind="compacted",
            parent=reader.version,
            documents=len(reader.tombstones.documents),
            passages=len(reader.tombstones.rows),
        )
        return following.publish(
            change,
            {},
            rows=len(reader),
            removed_rows=0,
            shards=tuple(shards),
            left_out_passages=(),  # they are named there, those of removed documents among them
        )


def _compacted_shards(reader: IndexReader, following: NextVersion) -> list[Shard]:
    """Write or share every shard; those with nothing left are not there any more."""
    kept = []
    rows = LiveRows(reader.manifest.rows, reader.tombstones.rows)
    first_row = first_document = 0
    for number, shard in enumerate(reader.manifest.shards):
        names = {
            "documents": f"documents/{shard.name}.parquet",
            "passages": f"passages/{shard.name}.parquet",
            "norms": f"vectors/{shard.name}.norms.npy",
            "units": f"vectors/{shard.name}.npy",
        }
        documents = pq.read_table(reader.directory / names["documents"])
        removed = reader.tombstones.documents
        left_documents = LiveRows(
            len(documents),
            removed[(removed >= first_document) & (removed < first_document + len(documents))]
            - first_document,
        ).mask()
        left_rows = rows.mask(first_row, first_row + shard.rows)
        first_row += shard.rows
        first_document += len(documents)
        if left_rows.all() and left_documents.all():
            following.keep(*names.values())
        elif left_rows.any() or left_documents.any():
            passages = pq.read_table(reader.directory / names["passages"])
            following.write(
                names["documents"],
                _parquet(documents.filter(left_documents), row_group_size=ROWS_PER_GROUP),
            )
            following.write(names["passages"], _parquet(passages.filter(left_rows)))
            following.write(names["norms"], _npy(reader.stored_norms(number)[left_rows]))
            following.write(names["units"], _npy(reader.stored_shards()[number][left_rows]))
        else:
            continue
        kept.append(Shard(name=shard.name, rows=int(left_rows.sum())))
    return kept


def _parquet(table: pa.Table, **options: Any) -> bytes:
    content = BytesIO()
    pq.write_table(table, content, compression="zstd", **options)
    return content.getvalue()


def _npy(array: np.ndarray) -> bytes:
    content = BytesIO()
    np.save(content, np.ascontiguousarray(array), allow_pickle=False)
    return content.getvalue()
