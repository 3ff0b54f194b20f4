"""Owners' summed vectors, from what readers will see (`influence.store.OwnerTotals`)."""

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from influence.manifest import Shard
from influence.staging import Staging
from influence.store import NO_OWNER

OWNERS = "owners.npz"


def sum_owners(staging: Staging, shards: Sequence[Shard]) -> None:
    """Add the stored vectors up per owner, in float64, and write `owners.npz`."""
    owner_of: dict[str, str] = {}
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    energy: dict[str, float] = {}
    for shard in shards:
        folder = staging.directory
        documents = pq.read_table(
            folder / f"documents/{shard.name}.parquet", columns=["id", "owner"]
        ).to_pydict()
        owner_of |= {
            i: o or NO_OWNER for i, o in zip(documents["id"], documents["owner"], strict=True)
        }
        rows = pq.read_table(folder / f"passages/{shard.name}.parquet", columns=["document_id"])
        owners = np.array([owner_of[d] for d in rows["document_id"].to_pylist()])
        units = np.load(folder / f"vectors/{shard.name}.npy", mmap_mode="r", allow_pickle=False)
        norms = np.load(folder / f"vectors/{shard.name}.norms.npy", allow_pickle=False)
        for owner in sorted(set(owners.tolist())):
            mine = np.flatnonzero(owners == owner)
            weights = norms[mine].astype(np.float64)
            total = weights @ units[mine].astype(np.float64)
            sums[owner] = sums.get(owner, 0.0) + total
            counts[owner] = counts.get(owner, 0) + len(mine)
            energy[owner] = energy.get(owner, 0.0) + float(np.square(weights).sum())
    names = sorted(sums)
    with staging.file(OWNERS) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            names=np.array(names, dtype=str),
            sums=np.stack([sums[name] for name in names]).astype(np.float32),
            counts=np.array([counts[name] for name in names]),
            self_influence=np.array([energy[name] for name in names]),
        )
