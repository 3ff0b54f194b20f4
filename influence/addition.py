"""Append finished shards to an index, and take out the documents that they replace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from influence.change import SEARCH, NextVersion
from influence.manifest import Change, CorpusIdentity, Shard
from influence.removal import bury
from influence.rows import TOMBSTONES
from influence.staging import shard_name
from influence.store import IndexReader
from influence.totals import NO_OWNER, OWNERS, sum_owners


def append_shards(
    reader: IndexReader,
    directory: Path,
    shards: Sequence[Shard],
    corpus: CorpusIdentity,
    *,
    outside_share: float | None = None,
    **manifest: Any,
) -> str:
    """Publish a version with more shards; under `influence.lock.changing`.

    A document of the index that has the id of one that comes is removed.

    Args:
        reader: The current version.
        directory: Holds the files of the shards, by the names of `influence.staging`.
        shards: What is appended, in this order.
        corpus: What they were made from.
        outside_share: Their drift, for the history.
        manifest: Further fields of the manifest that change.

    Returns:
        The name of the version.
    """
    arriving: dict[str, str] = {}  # id -> owner
    for shard in shards:
        table = pq.read_table(
            directory / f"documents/{shard.name}.parquet", columns=["id", "owner"]
        )
        arriving |= {row["id"]: row["owner"] or NO_OWNER for row in table.to_pylist()}
    replaced = {
        number: record
        for number, record in reader.document_records(["id", "owner"])
        if record["id"] in arriving
    }
    numbers = np.array(sorted(replaced), dtype=np.int64)
    buried = bury(reader, numbers, [record["id"] for record in replaced.values()])
    following = NextVersion(reader)
    following.keep_all_but(OWNERS, SEARCH, TOMBSTONES)
    if len(buried.tombstones.rows) or len(buried.tombstones.documents):
        following.write(TOMBSTONES, buried.tombstones.to_bytes())
    appended = _append(reader, following, directory, shards)
    totals = sum_owners(
        following.directory,
        appended,
        reader.dims,
        buried.tombstones,
        known=reader.owners,
        changed={*arriving.values(), *(r["owner"] or NO_OWNER for r in replaced.values())},
    )
    following.write(OWNERS, totals.to_bytes())
    change = Change(
        kind="added",
        parent=reader.version,
        documents=len(arriving),
        passages=sum(shard.rows for shard in shards),
        corpus=corpus,
        outside_share=outside_share,
    )
    grown = {
        name: getattr(buried.corpus, name) + getattr(corpus, name)
        for name in ("documents", "passages", "tokens", "target_tokens")
    }
    return following.publish(
        change,
        {},
        **{
            "shards": tuple(appended),
            "rows": sum(shard.rows for shard in appended),
            "removed_rows": len(buried.tombstones.rows),
            "corpus": buried.corpus.model_copy(update=grown),
            "quality": (),  # what was measured was another index
            **manifest,
        },
    )


def _append(
    reader: IndexReader, following: NextVersion, directory: Path, shards: Sequence[Shard]
) -> list[Shard]:
    """All shards of the version, those that come under the numbers behind the others."""
    appended = list(reader.manifest.shards)
    for shard in shards:
        name = shard_name(1 + int(appended[-1].name))
        for file in (
            "documents/{}.parquet",
            "passages/{}.parquet",
            "vectors/{}.norms.npy",
            "vectors/{}.npy",
        ):
            following.take(directory / file.format(shard.name), file.format(name))
        appended.append(Shard(name=name, rows=shard.rows))
    return appended
