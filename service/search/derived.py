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
FORMAT = 1
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
        _save(folder, source, built)
    except StorageFull as error:
        log.warning("the search structure %s is not kept and will be built again: %s", name, error)
    return built


def _load(folder: Path, source: str) -> Derived | None:
    try:
        record = Record.model_validate_json((folder / _RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
    if record.format != FORMAT or record.source_sha256 != source:
        return None
    arrays = {}
    for name, sha256 in record.files.items():
        path = folder / f"{name}.npy"
        try:
            if file_sha256(path) != sha256:
                log.warning("%s was altered; it is built again", path)
                return None
            arrays[name] = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            return None
    return Derived(arrays=arrays, rescored=record.rescored, recall=record.recall)


def _save(folder: Path, source: str, built: Derived) -> None:
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
    record = Record(source_sha256=source, files=files, rescored=built.rescored, recall=built.recall)
    write_bytes(folder / _RECORD, record.model_dump_json(indent=1).encode() + b"\n")
