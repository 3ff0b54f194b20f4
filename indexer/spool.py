"""Projected gradients of the fit sample, on disk between their first use and their last.

They are read twice: layer by layer for the curvature of each, and passage by passage for the
covariance across layers. In memory there is one layer or a few passages of them at a time.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from influence.atomic import storage_errors

ROWS_PER_BLOCK = 64


class GradientSpool:
    """``[n, K]`` float32 in a file, which goes with the ``with`` block.

    Attributes:
        rows: ``n``, so far.
        squares: Their squares summed over the rows, ``[K]`` float64.
    """

    def __init__(self, path: Path, coordinates: int) -> None:
        self.rows = 0
        self.squares = torch.zeros(coordinates, dtype=torch.float64)
        self._path = path
        self._coordinates = coordinates

    def __enter__(self) -> "GradientSpool":
        with storage_errors(self._path):
            self._stream = self._path.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # what is wrong with the folder has been said already
            self._stream.close()
            self._path.unlink(missing_ok=True)

    def append(self, coordinates: Tensor) -> None:
        """Add rows ``[B, K]``.

        Raises:
            StorageFull: The disk is full.
        """
        self.squares += coordinates.double().square().sum(dim=0).cpu()
        self.rows += len(coordinates)
        with storage_errors(self._path):
            self._stream.write(coordinates.cpu().numpy().tobytes())
            self._stream.flush()

    def columns(self, start: int, stop: int) -> Tensor:
        """Coordinates ``[start, stop)`` of all rows."""
        return torch.from_numpy(np.array(self._stored()[:, start:stop]))

    def blocks(self) -> Iterator[Tensor]:
        """The rows, a few at a time."""
        stored = self._stored()
        for start in range(0, self.rows, ROWS_PER_BLOCK):
            yield torch.from_numpy(np.array(stored[start : start + ROWS_PER_BLOCK]))

    def _stored(self) -> np.ndarray:
        shape = (self.rows, self._coordinates)
        return np.memmap(self._path, dtype=np.float32, mode="r", shape=shape)
