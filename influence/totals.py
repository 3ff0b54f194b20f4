"""Owners' summed vectors: computed from the files of a version, never from earlier sums.

Influence is linear in the passage, so an owner's total for a query is one product with the sum of
its vectors. Sums that were subtracted from would drift away from the rows they stand for; so an
owner that lost or gained a row is summed again, and the same rows always give the same bits.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from influence.manifest import Shard
from influence.rows import LiveRows, Tombstones

OWNERS = "owners.npz"
NO_OWNER = ""  # key of documents without an owner, in arrays of owners


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

    @classmethod
    def load(cls, path: Path) -> "OwnerTotals":
        """Read what `to_bytes` gave; damage raises what numpy, zipfile and zlib raise."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(
                tuple(str(name) for name in stored["names"]),
                stored["sums"],
                stored["counts"],
                stored["self_influence"],
            )

    def to_bytes(self) -> bytes:
        """The bytes of `owners.npz`."""
        content = BytesIO()
        np.savez(
            content,
            names=np.array(self.names, dtype=str),
            sums=self.sums,
            counts=self.counts,
            self_influence=self.self_influence,
        )
        return content.getvalue()


@dataclass(frozen=True)
class _Sum:
    vector: np.ndarray  # [D] float64
    count: int
    self_influence: float


def sum_owners(
    directory: Path,
    shards: Sequence[Shard],
    dims: int,
    tombstones: Tombstones | None = None,
    *,
    known: OwnerTotals | None = None,
    changed: Collection[str] = (),
) -> OwnerTotals:
    """Add the stored vectors up per owner, in float64, from what readers will see.

    Args:
        directory: With the files of the version.
        shards: Of the version.
        dims: ``D``.
        tombstones: Of the version.
        known: Totals of another version, to be kept for owners whose rows are the same here.
        changed: Those whose rows are not; only they are read.
    """
    tombstones = tombstones or Tombstones.none()
    live = LiveRows(sum(shard.rows for shard in shards), tombstones.rows)
    owner_of = _owners_of_documents(directory, shards, tombstones)
    found: dict[str, _Sum] = {}
    if known is not None:
        kept = zip(known.names, known.sums, known.counts, known.self_influence, strict=True)
        found = {
            name: _Sum(total, int(count), float(energy))
            for name, total, count, energy in kept
            if name not in changed
        }
    first = 0
    for shard in shards:
        path = directory / f"passages/{shard.name}.parquet"
        ids = pq.read_table(path, columns=["document_id"])["document_id"].to_pylist()
        owners = np.array([owner_of.get(document_id, NO_OWNER) for document_id in ids], dtype=str)
        left = live.mask(first, first + shard.rows)
        first += shard.rows
        wanted = set(owners[left].tolist())
        if known is not None:
            wanted &= set(changed)
        if not wanted:
            continue
        stem = f"{directory}/vectors/{shard.name}"
        units = np.load(f"{stem}.npy", mmap_mode="r", allow_pickle=False)
        norms = np.load(f"{stem}.norms.npy", allow_pickle=False)
        for owner in sorted(wanted):
            mine = np.flatnonzero((owners == owner) & left)
            weights = norms[mine].astype(np.float64)
            before = found.get(owner, _Sum(np.zeros(dims), 0, 0.0))
            found[owner] = _Sum(
                before.vector + weights @ units[mine].astype(np.float64),
                before.count + len(mine),
                before.self_influence + float(np.square(weights).sum()),
            )
    names = tuple(sorted(found))
    sums = np.zeros((len(names), dims), dtype=np.float32)
    for number, name in enumerate(names):
        sums[number] = found[name].vector
    return OwnerTotals(
        names,
        sums,
        np.array([found[name].count for name in names], dtype=np.int64),
        np.array([found[name].self_influence for name in names], dtype=np.float64),
    )


def _owners_of_documents(
    directory: Path, shards: Sequence[Shard], tombstones: Tombstones
) -> dict[str, str]:
    """Owner of each document that is left; one of the same id may have been removed."""
    owner_of: dict[str, str] = {}
    dead = set(tombstones.documents.tolist())
    number = 0
    for shard in shards:
        path = directory / f"documents/{shard.name}.parquet"
        documents = pq.read_table(path, columns=["id", "owner"]).to_pydict()
        for document_id, owner in zip(documents["id"], documents["owner"], strict=True):
            if number not in dead:
                owner_of[document_id] = owner or NO_OWNER
            number += 1
    return owner_of
