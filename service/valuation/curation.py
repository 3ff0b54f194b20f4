"""What is kept of a corpus and what is dropped: lists of ids, and a data set to train on.

The lists are plain text, one id a line: what is kept in the order in which it was chosen, the
rest in that of the index. The data set is a folder that `datasets.load_from_disk` opens and
`whence index` takes as a corpus, in the order of the index.
"""

import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from influence.atomic import storage_errors, write_bytes
from influence.errors import InvalidInput
from influence.store import IndexReader


@dataclass(frozen=True)
class Export:
    """Where the choice goes; None: nowhere.

    Attributes:
        keep: File for the ids of what is kept.
        drop: File for those of the others.
        dataset: Folder for the documents that are kept; must not be there.
    """

    keep: Path | None = None
    drop: Path | None = None
    dataset: Path | None = None

    def check(self) -> None:
        """Find out before any work whether the data set can be written.

        Raises:
            InvalidInput: Its folder is there already, or `datasets` is not installed.
        """
        if self.dataset is None:
            return
        _datasets()
        if self.dataset.exists():
            raise InvalidInput(
                f"{self.dataset} is there already. Give another folder, or remove that one."
            )

    def write(self, reader: IndexReader, kept: Sequence[str]) -> None:
        """Write what is asked for, each file and folder whole or not at all.

        Args:
            reader: The index that the documents are in.
            kept: Ids of those to keep, documents of the index; every other is dropped.

        Raises:
            InvalidInput: No document is kept; nothing was written.
            StorageFull: The disk is full or a folder cannot be written.
        """
        wanted = frozenset(kept)
        ids = reader.document_ids()
        if not wanted:
            raise InvalidInput("None of the documents would be kept. Choose less strictly.")
        if self.keep is not None:
            write_bytes(self.keep, _lines(kept))
        if self.drop is not None:
            write_bytes(self.drop, _lines(d for d in ids if d not in wanted))
        if self.dataset is not None:
            _write_dataset(reader, wanted, self.dataset)


def _lines(ids: Iterable[str]) -> bytes:
    return "".join(f"{one}\n" for one in ids).encode()


def _write_dataset(reader: IndexReader, kept: frozenset[str], folder: Path) -> None:
    datasets = _datasets()
    text = datasets.Value("string")
    names = ("id", "text", "title", "source", "owner", "licence", "url", "metadata_json")
    columns: dict[str, Any] = dict.fromkeys(names, text)
    columns["messages"] = datasets.List({"role": text, "content": text})
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    with storage_errors(folder), TemporaryDirectory() as cache:
        try:
            made = datasets.Dataset.from_generator(
                lambda: _records(reader, kept),
                features=datasets.Features(columns),
                cache_dir=cache,
                fingerprint=secrets.token_hex(8),  # else it is a hash of the pickled reader
            )
            made.save_to_disk(str(temporary))
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _records(reader: IndexReader, kept: frozenset[str]) -> Iterator[dict[str, Any]]:
    """As `indexer.records` reads them; metadata as JSON, since a column has one type."""
    for document in reader.documents():
        if document.id in kept:
            yield {
                "id": document.id,
                "text": document.plain,
                "messages": [vars(m) for m in document.messages] or None,
                "title": document.title,
                "source": document.source,
                "owner": document.owner,
                "licence": document.licence,
                "url": document.url,
                "metadata_json": json.dumps(dict(document.metadata), sort_keys=True)
                if document.metadata
                else None,
            }


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InvalidInput(
            "A data set is written with the package datasets, which is not installed. Install it: "
            "`pip install whence[curation]`, or use the lists of ids."
        ) from error
    return datasets
