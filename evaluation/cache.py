"""Results of retraining, kept on disk under a hash of everything that decides them.

Retraining is what an evaluation costs; a second method, or a run that was killed, must not pay it
again. A result is a few named arrays in one ``.npz``, whole or absent.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from influence.atomic import replacing, storage_errors
from influence.errors import AttributionError

Arrays = dict[str, np.ndarray]


def default_cache_dir() -> Path:
    """``$XDG_CACHE_HOME/whence/evaluation``; ``~/.cache`` unless the user moved it."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "whence" / "evaluation"


def key_of(inputs: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits over JSON-like values and arrays (shape, dtype and bytes)."""

    def described(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return {"shape": value.shape, "dtype": str(value.dtype), "sha256": digest}
        raise TypeError(f"{type(value).__name__} has no place in a key; give JSON or an array.")

    text = json.dumps(inputs, sort_keys=True, default=described)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cached(
    folder: Path, name: str, inputs: Mapping[str, Any], make: Callable[[], Arrays]
) -> Arrays:
    """What ``make`` returned for these inputs, now or earlier.

    Args:
        folder: Made where it does not exist.
        name: Beginning of the file's name, for people.
        inputs: Everything that decides the arrays.
        make: Computes them.

    Raises:
        AttributionError: The file that is there cannot be read.
        StorageFull: The folder cannot be written.
    """
    path = folder / f"{name}-{key_of(inputs)}.npz"
    if path.exists():
        try:
            # Opened here: numpy leaves its own handle open when the file is no archive.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, BadZipFile, EOFError) as error:
            raise AttributionError(
                f"The cached result {path} cannot be read: {error}. Remove the file; it will be "
                "computed again."
            ) from error
    arrays = make()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    return arrays
