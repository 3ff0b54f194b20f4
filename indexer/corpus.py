"""Documents out of whatever a corpus is: a file, a folder, a Hugging Face dataset.

Files: ``.jsonl``, ``.jsonl.gz``, ``.jsonl.zst``, ``.parquet``, ``.csv``, and ``.txt`` (one document
each). A folder is read with its subfolders, in the order of the names. Everything streams: memory
holds one record, or a few hundred rows of a Parquet file, whatever the size of the corpus.

A record without an id gets ``"<file stem>:<line>"``, in a folder with the path of its subfolder in
front; a ``.txt`` file is named by its stem alone. Reading again gives the same documents.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from indexer.hub import is_dataset_name, is_saved_dataset, named_dataset, saved_dataset
from indexer.readers import READERS, RawRecord
from indexer.records import BadRecord, parse_record
from influence.documents import Document
from influence.errors import CorpusError
from influence.manifest import MANIFEST
from influence.store import IndexReader

OnBad = Callable[[str], None]


@dataclass(frozen=True)
class Located:
    """A document and the place it comes from, as in "facts.jsonl, line 3"."""

    document: Document
    where: str


@dataclass(frozen=True)
class _Part:
    """A file or a dataset: how messages call it, and its records."""

    name: str
    records: Iterator[RawRecord]


def read_corpus(
    path_or_name: str | Path, *, skip_bad_records: bool = False, on_bad: OnBad | None = None
) -> Iterator[Document]:
    """Stream the documents of a corpus.

    Args:
        path_or_name: A file, a folder, or the ``owner/name`` of a dataset.
        skip_bad_records: Leave records out that cannot be used, instead of stopping at the first.
        on_bad: Told of each record left out: where it stands and what is wrong with it.

    Raises:
        CorpusError: The corpus does not exist, cannot be read, or holds no document; or a record
            of it cannot be used. The message names file and line.
    """
    located = locate_corpus(path_or_name, skip_bad_records=skip_bad_records, on_bad=on_bad)
    return (item.document for item in located)


def locate_corpus(
    path_or_name: str | Path, *, skip_bad_records: bool = False, on_bad: OnBad | None = None
) -> Iterator[Located]:
    """`read_corpus`, with the place of each document."""
    corpus = str(path_or_name)
    good = bad = 0
    first_bad = ""
    for part in _parts(corpus):
        for raw in _guarded(part):
            where = f"{part.name}, {raw.where}" if raw.where else part.name
            try:
                document = _document(raw)
            except BadRecord as error:
                fault = f"{where}: {error}"
                if not skip_bad_records:
                    raise CorpusError(
                        f"{fault}. Correct the record, or leave such records out with "
                        "--skip-bad-records."
                    ) from error
                first_bad = first_bad or fault
                bad += 1
                if on_bad is not None:
                    on_bad(fault)
                continue
            good += 1
            yield Located(document, where)
    if not good and bad:
        raise CorpusError(
            f"None of the {bad} records of {corpus} can be used; the first is {first_bad}. "
            "A record needs text, prompt and response, or messages."
        )
    if not good:
        raise CorpusError(
            f"{corpus} holds no document; give a corpus with at least one record that has text, "
            "prompt and response, or messages."
        )


def corpus_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files of a folder and its subfolders: those of the corpus, and those of no known kind.

    Both in the order of their paths; hidden files and folders are neither.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    return (
        [path for path in files if _kind(path) is not None],
        [path for path in files if _kind(path) is None],
    )


def _parts(corpus: str) -> Iterator[_Part]:
    path = Path(corpus)
    try:
        if path.is_file():
            yield _file_part(path, path.name, path.name)
        elif path.is_dir() and is_saved_dataset(path):
            yield _Part(corpus, saved_dataset(path))
        elif path.is_dir() and (path / MANIFEST).is_file():
            yield _Part(corpus, _indexed_records(path))
        elif path.is_dir():
            yield from _folder_parts(path)
        elif not path.exists() and is_dataset_name(corpus):
            yield _Part(corpus, named_dataset(corpus))
        else:
            raise CorpusError(
                f"There is no corpus {corpus}; give a {', '.join(READERS)} file, a folder of them, "
                "or a Hugging Face dataset as owner/name."
            )
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(corpus, error) from error


def _indexed_records(version: Path) -> Iterator[RawRecord]:
    """The documents of a version of an index, as the corpus had them."""
    for document in IndexReader.open(version.parent.parent, version.name).documents():
        labels = ("id", "title", "source", "owner", "licence", "url")
        fields: dict[str, Any] = {name: getattr(document, name) for name in labels}
        fields["metadata"] = document.metadata
        if document.plain is not None:
            fields["text"] = document.plain
        else:
            fields["messages"] = [asdict(message) for message in document.messages]
        yield RawRecord(f"document {document.id!r}", document.id, fields)


def _folder_parts(folder: Path) -> Iterator[_Part]:
    files, _ = corpus_files(folder)
    if not files:
        raise CorpusError(
            f"The folder {folder} holds no file of a corpus; put {', '.join(READERS)} files in it."
        )
    names = [path.relative_to(folder).as_posix() for path in files]
    stems = Counter(_stem(name) for name in names)
    for path, name in zip(files, names, strict=True):
        # a.csv beside a.jsonl: the stem alone would give two records one id.
        alone = stems[_stem(name)] == 1
        yield _file_part(path, f"{folder.name}/{name}", name if alone else f"{name}{_kind(path)}")


def _file_part(path: Path, name: str, named: str) -> _Part:
    kind = _kind(path)
    if kind is None:
        raise CorpusError(
            f"{path} is no kind of file that is read; give a {', '.join(READERS)} file, or a "
            "folder of them."
        )
    return _Part(name, READERS[kind](path, _stem(named)))


def _kind(path: Path) -> str | None:
    """The suffix by which a file is read."""
    return next((suffix for suffix in READERS if path.name.lower().endswith(suffix)), None)


def _stem(name: str) -> str:
    kind = _kind(Path(name))
    return name if kind is None else name[: -len(kind)]


def _document(raw: RawRecord) -> Document:
    if raw.fault is not None:
        raise BadRecord(raw.fault)
    return parse_record(raw.fields, raw.default_id)


def _guarded(part: _Part) -> Iterator[RawRecord]:
    """The records of a part; a failure to read on is an error of the corpus, never its end."""
    try:
        yield from part.records
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(part.name, error) from error


def _unreadable(name: str, error: Exception) -> CorpusError:
    return CorpusError(
        f"{name} cannot be read: {error}. Check that the file is whole and that you may read it."
    )
