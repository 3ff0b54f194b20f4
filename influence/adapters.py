"""Folders of PEFT adapters: a few trained weights, and the name of the model they belong to."""

import hashlib
import json
from pathlib import Path
from typing import Any

from influence.atomic import file_sha256
from influence.errors import ModelUnavailable

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def base_of(folder: str) -> str | None:
    """The model that the adapters of a folder belong to; None where the folder holds none.

    A relative path is taken from the folder, if it leads anywhere from there.

    Raises:
        ModelUnavailable: Adapters without safetensors weights, or that do not name their model.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        return None
    try:
        base = json.loads(path.read_bytes()).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ModelUnavailable(f"{path} is no JSON object. Save the adapters again.") from error
    if not (Path(folder) / WEIGHTS).is_file():
        raise ModelUnavailable(
            f"{folder} holds adapters without {WEIGHTS}. Save them again as safetensors."
        )
    if not base:
        raise ModelUnavailable(
            f"{path} does not name the model that the adapters belong to. Write its folder or name "
            "into base_model_name_or_path."
        )
    beside = Path(folder) / base
    return str(beside) if beside.is_dir() else str(base)


def with_adapters(model: Any, folder: str) -> Any:
    """The model with the adapters of a folder in its layers.

    Raises:
        ModelUnavailable: PEFT is not installed, or the adapters do not fit the model.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ModelUnavailable(
            f"{folder} holds PEFT adapters, and the package peft is missing. Install it with "
            "`pip install peft`, or merge the adapters into their model and save that."
        ) from error
    try:
        return PeftModel.from_pretrained(model, folder)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelUnavailable(
            f"The adapters of {folder} could not be put into {type(model).__name__}: "
            f"{str(error).splitlines()[0]} Check that base_model_name_or_path is their model."
        ) from error


def combined_sha256(base_sha256: str, folder: str) -> str:
    """Over the model's own fingerprint and the adapters' weights and settings."""
    parts = [base_sha256, file_sha256(Path(folder) / WEIGHTS), file_sha256(Path(folder) / CONFIG)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
