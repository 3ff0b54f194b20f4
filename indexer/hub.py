"""Hugging Face datasets, saved on disk or named, as raw records."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from indexer.readers import RawRecord
from influence.errors import CorpusError

_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_saved_dataset(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def is_dataset_name(name: str) -> bool:
    """Whether this reads like ``owner/name``; anything else is a mistyped path."""
    return _NAME.fullmatch(name) is not None


def saved_dataset(folder: Path) -> Iterator[RawRecord]:
    """The rows of a dataset that ``save_to_disk`` wrote; of its splits the one named train.

    Raises:
        CorpusError: `datasets` is not installed, or there are several splits and none is train.
    """
    rows = _train(_datasets().load_from_disk(str(folder)), str(folder))
    return _records(rows, folder.name)


def named_dataset(name: str) -> Iterator[RawRecord]:
    """The rows of a dataset of the Hub, streamed; of its splits the one named train.

    Raises:
        CorpusError: `datasets` is not installed, the dataset cannot be had, or there are several
            splits and none is train.
    """
    datasets = _datasets()
    try:
        loaded = datasets.load_dataset(name, streaming=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise CorpusError(
            f"There is no file or folder {name}, and the Hugging Face dataset of this name cannot "
            f"be had: {error}. Correct the name, or save the dataset (and its configuration) with "
            "save_to_disk and give that folder."
        ) from error
    return _records(_train(loaded, name), name.rpartition("/")[2])


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise CorpusError(
            "The corpus is a Hugging Face dataset and the package datasets is not installed; "
            "install it with `pip install datasets`, or give the corpus as .jsonl or .parquet."
        ) from error
    return datasets


def _train(loaded: Any, name: str) -> Any:
    """A dataset, or of a dict of splits the one on which people train."""
    if not isinstance(loaded, dict):
        return loaded
    if len(loaded) == 1:
        return next(iter(loaded.values()))
    if "train" in loaded:
        return loaded["train"]
    raise CorpusError(
        f"{name} has the splits {', '.join(map(str, loaded))} and none of them is named train; "
        "save the one that was trained on with save_to_disk and give its folder."
    )


def _records(rows: Any, stem: str) -> Iterator[RawRecord]:
    for number, fields in enumerate(rows, start=1):
        yield RawRecord(f"row {number}", f"{stem}:{number}", fields)
