"""Gradients of every example that training saw, as a folder, and the data order they tell.

LOG/
  log.json             what was logged: layers, rank, dims, seed
  basis.safetensors    the projections; queries take the same road (`GradientEncoder`)
  rows/00000.npz       ids, steps, vectors [n, D] float32, in the order of training
  data_order.jsonl     written at the end, for a record of the training
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from influence.atomic import replacing, storage_errors, write_bytes
from influence.basis import Basis, load_basis, save_basis
from influence.errors import BuildConflict, IndexCorrupt

DESCRIPTION = "log.json"
BASIS = "basis.safetensors"
ROWS = "rows"
ROWS_PER_FILE = 512


class LogWriter:
    """Writes a log, a file of rows at a time.

    Args:
        folder: Made here; one that holds a log is refused.
        basis: Of the vectors.

    Raises:
        BuildConflict: The folder holds a log.
        StorageFull: The folder cannot be written.
    """

    def __init__(self, folder: Path, basis: Basis) -> None:
        if (folder / DESCRIPTION).exists():
            raise BuildConflict(
                f"{folder} holds the log of another training. Give another folder, or remove it."
            )
        self._folder = folder
        self._ids: list[str] = []
        self._steps: list[int] = []
        self._vectors: list[np.ndarray] = []
        self._files = 0
        with storage_errors(folder):
            (folder / ROWS).mkdir(parents=True, exist_ok=True)
        with replacing(folder / BASIS) as temporary:
            save_basis(basis, temporary)
        described = {
            "damping": basis.damping,
            "joint_damping": 1.0,
            "dims": basis.dims,
            "seed": basis.seed,
            "layers": [{"name": layer.name, "leader": layer.leader} for layer in basis.layers],
        }
        write_bytes(folder / DESCRIPTION, json.dumps(described, indent=1).encode() + b"\n")

    def add(self, ids: list[str], step: int, vectors: np.ndarray) -> None:
        """Rows of one batch, ``[B, D]`` float32."""
        self._ids += ids
        self._steps += [step] * len(ids)
        self._vectors.append(vectors)
        if len(self._ids) >= ROWS_PER_FILE:
            self.flush()

    def flush(self) -> None:
        """Write what waits in memory.

        Raises:
            StorageFull: The disk is full.
        """
        if not self._ids:
            return
        path = self._folder / ROWS / f"{self._files:05d}.npz"
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream,
                allow_pickle=False,
                ids=np.array(self._ids),
                steps=np.array(self._steps),
                vectors=np.concatenate(self._vectors),
            )
        self._files += 1
        self._ids, self._steps, self._vectors = [], [], []

    def write_data_order(self, path: Path) -> None:
        """One line a step, from the rows so far (`indexer.training_record`)."""
        self.flush()
        seen: dict[int, list[str]] = {}
        for file in sorted((self._folder / ROWS).glob("*.npz")):
            with np.load(file, allow_pickle=False) as rows:
                for step, name in zip(rows["steps"].tolist(), rows["ids"].tolist(), strict=True):
                    seen.setdefault(step, []).append(name)
        lines = (json.dumps({"steps": [s, s], "documents": d}) for s, d in sorted(seen.items()))
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


@dataclass(frozen=True)
class TrainingLog:
    """A log that was read: ids and steps of the rows ``[n]``, vectors ``[n, D]``, their basis."""

    ids: list[str]
    steps: np.ndarray
    vectors: np.ndarray
    basis: Basis

    @classmethod
    def open(cls, folder: Path) -> "TrainingLog":
        """Read a whole log.

        Raises:
            IndexCorrupt: A file is missing or damaged.
        """
        try:
            described: dict[str, Any] = json.loads((folder / DESCRIPTION).read_bytes())
            basis = load_basis(folder / BASIS, described, described["layers"])
            ids: list[str] = []
            steps, vectors = [np.zeros(0, np.int64)], [np.zeros((0, basis.vector_dims), np.float32)]
            for file in sorted((folder / ROWS).glob("*.npz")):
                with np.load(file, allow_pickle=False) as rows:
                    ids += rows["ids"].tolist()
                    steps.append(rows["steps"])
                    vectors.append(rows["vectors"])
        except (OSError, ValueError, KeyError) as error:
            raise IndexCorrupt(
                f"{folder} is no log of a training, or a damaged one: {error}. Train again."
            ) from error
        return cls(ids, np.concatenate(steps), np.concatenate(vectors), basis)
