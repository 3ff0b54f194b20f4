"""What a search derives from the vectors, kept beside them: `search/<name>/` of a version.

    search/rabitq/codes.npy …     arrays
    search/rabitq/record.json     written last: sha256 of each array and of what they are from

They can be made again at any time, so they are not in the manifest. The record ties them to the
very vectors, norms and removals of a version: files of others, altered ones or ones of an earlier
format are not used but made anew.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from influence.atomic import file_sha256, replacing, write_bytes
from influence.errors import StorageFull
from influence.store import IndexReader

log = logging.getLogger(__name__)

FOLDER = "search"
KINDS = ("sq8", "rabitq")  # the ways that derive something
FORMAT = 2
_RECORD = "record.json"


class Record(BaseModel):
    """What derived arrays are, and how well they search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    source_sha256: str
    files: dict[str, str]
    rescored: int
    recall: float


class Derived(BaseModel):
    """Arrays with what was measured of them."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    arrays: dict[str, np.ndarray]
    rescored: int
    recall: float


def source_sha256(reader: IndexReader) -> str:
    """Names the vectors, norms and removals of a version."""
    files = {
        name: entry.sha256
        for name, entry in reader.manifest.files.items()
        if name.startswith(("vectors/", "tombstones"))
    }
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def damaged_structures(reader: IndexReader) -> tuple[str, ...]:
    """Ways to search whose files are there and are not what a record says of these very vectors."""
    source = source_sha256(reader)
    folders = {kind: reader.directory / FOLDER / kind for kind in KINDS}
    return tuple(
        kind
        for kind, folder in folders.items()
        if folder.exists() and _intact_record(folder, source) is None
    )


def load_or_build(reader: IndexReader, name: str, build: Callable[[], Derived]) -> Derived:
    """Arrays from the index folder, or built now and kept there if it can be written.

    Args:
        reader: The version.
        name: Of the way to search.
        build: Makes and measures them.
    """
    folder = reader.directory / FOLDER / name
    source = source_sha256(reader)
    if (kept := _load(folder, source)) is not None:
        return kept
    log.warning(
        "building the search structure %s of %d rows; `whence search-index` does it beforehand",
        name,
        len(reader),
    )
    built = build()
    try:
        save(reader, name, built)
    except StorageFull as error:
        log.warning("the search structure %s is not kept and will be built again: %s", name, error)
    return built


def _load(folder: Path, source: str) -> Derived | None:
    record = _intact_record(folder, source)
    if record is None:
        return None
    try:
        arrays = {
            name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in record.files
        }
    except (OSError, ValueError):
        return None
    return Derived(arrays=arrays, rescored=record.rescored, recall=record.recall)


def _intact_record(folder: Path, source: str) -> Record | None:
    """The record, if it is of these vectors and every file has the sha256 that it says."""
    try:
        record = Record.model_validate_json((folder / _RECORD).read_bytes())
        if record.format != FORMAT or record.source_sha256 != source:
            return None
        for name, sha256 in record.files.items():
            if file_sha256(folder / f"{name}.npy") != sha256:
                log.warning("%s was altered", folder / f"{name}.npy")
                return None
    except (OSError, ValidationError):
        return None
    return record


def save(reader: IndexReader, name: str, built: Derived) -> None:
    """Keep arrays in the folder of the version; the record last.

    Raises:
        StorageFull: The folder cannot be written.
    """
    folder = reader.directory / FOLDER / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise StorageFull(f"Writing {folder} failed: {error}.") from error
    files = {}
    for name, array in built.arrays.items():
        path = folder / f"{name}.npy"
        with replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
        files[name] = file_sha256(path)
    record = Record(
        source_sha256=source_sha256(reader),
        files=files,
        rescored=built.rescored,
        recall=built.recall,
    )
    write_bytes(folder / _RECORD, record.model_dump_json(indent=1).encode() + b"\n")
