"""Vectors of the checkpoints so far, added up on disk: one file a shard, whole or absent."""

import io
from pathlib import Path

import numpy as np

from influence.atomic import write_bytes
from influence.staging import shard_name


class RunningSums:
    """``[n, D]`` float32 of each shard, up to some checkpoint; an older sum goes with the newer.

    Args:
        folder: Of the files; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def reaches(self, shard: int, checkpoint: int) -> bool:
        """Whether the sum holds the vectors of a checkpoint."""
        return self._latest(shard) >= checkpoint

    def of(self, shard: int) -> np.ndarray | None:
        """The sum as it stands; None before the first checkpoint."""
        latest = self._latest(shard)
        if latest < 0:
            return None
        return np.load(self._path(shard, latest), allow_pickle=False)

    def add(self, shard: int, checkpoint: int, vectors: np.ndarray) -> None:
        """Add the vectors of the next checkpoint.

        Raises:
            StorageFull: The disk is full.
            ValueError: It is not the next.
        """
        latest = self._latest(shard)
        if checkpoint != latest + 1:
            raise ValueError(f"checkpoint {checkpoint} cannot follow {latest} in a sum.")
        before = self.of(shard)
        content = io.BytesIO()
        np.save(content, vectors if before is None else before + vectors, allow_pickle=False)
        write_bytes(self._path(shard, checkpoint), content.getvalue())
        if before is not None:
            self._path(shard, latest).unlink(missing_ok=True)

    def _latest(self, shard: int) -> int:
        names = self._folder.glob(f"{shard_name(shard)}.sum-*.npy")
        return max((int(path.stem.rpartition("-")[2]) for path in names), default=-1)

    def _path(self, shard: int, checkpoint: int) -> Path:
        return self._folder / f"{shard_name(shard)}.sum-{checkpoint}.npy"
