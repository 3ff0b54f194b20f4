"""The documents of an index in its Parquet files, by their number there.

Importing this module loads neither torch nor faiss.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence.errors import IndexCorrupt


class DocumentFiles:
    """Records of `influence.tables`; those of removed documents are still among them.

    Args:
        paths: The files, in the order of the corpus.

    Raises:
        IndexCorrupt: One is not what the indexer wrote.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files: list[tuple[Path, Any]] = []
        for path in paths:
            with _reading(path):
                self._files.append((path, pq.ParquetFile(path)))
        self._first = np.cumsum([0, *(file.metadata.num_rows for _, file in self._files)])

    def record(self, number: int) -> dict[str, Any]:
        """One record.

        Raises:
            IndexCorrupt: Its file has been altered since.
        """
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        path, file = self._files[shard]
        offset, group = number - int(self._first[shard]), 0
        while offset >= file.metadata.row_group(group).num_rows:
            offset -= file.metadata.row_group(group).num_rows
            group += 1
        with _reading(path):
            return file.read_row_group(group).slice(offset, 1).to_pylist()[0]

    def records(self, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        """All records, or some of their columns, in order; a few in memory at a time.

        Raises:
            IndexCorrupt: A file has been altered since.
        """
        for path, file in self._files:
            for group in range(file.metadata.num_row_groups):
                with _reading(path):
                    records = file.read_row_group(group, columns=columns).to_pylist()
                yield from records


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise IndexCorrupt(
            f"{path} is not what the indexer wrote. Restore it from a backup, or build the index "
            "again."
        ) from error
