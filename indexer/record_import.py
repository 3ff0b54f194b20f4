"""Records of trainings from what trainers leave: a Trainer's output folder, or a YAML file."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from indexer.second_moments import convert_second_moments
from indexer.training_record import (
    DATA_ORDER,
    TrainingRecord,
    check_checkpoints,
    data_order,
    parse_record,
    second_moments_of,
)
from influence.errors import InvalidInput

TRAINER_STATE = "trainer_state.json"


def record_of_trainer(
    directory: Path, *, optimizer: str = "adamw", weight_decay: float = 0.0
) -> TrainingRecord:
    """From the output folder of `transformers.Trainer`: its ``checkpoint-N`` and their state.

    The learning rates are those that it logged. It does not write down which optimiser it had, nor
    the weight decay. Adam's second moments are taken out of its ``optimizer.pt``, unless training
    wrote them itself.

    Args:
        directory: ``TrainingArguments.output_dir``.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        weight_decay: Of the optimiser.

    Raises:
        InvalidInput: There are no checkpoints, or their state does not say how training went.
    """
    folders = sorted(
        (f for f in directory.glob("checkpoint-*") if f.name.rpartition("-")[2].isdecimal()),
        key=lambda folder: int(folder.name.rpartition("-")[2]),
    )
    if not folders:
        raise InvalidInput(
            f"{directory} has no folder checkpoint-N, as transformers.Trainer writes them. Give "
            "its output_dir, or describe the training in a YAML file (--yaml)."
        )
    state = _trainer_state(folders[-1])
    logged = {
        int(entry["step"]): float(entry["learning_rate"])
        for entry in state.get("log_history", ())
        if "learning_rate" in entry
    }
    if not logged:
        raise InvalidInput(
            f"{folders[-1] / TRAINER_STATE} has no learning rate in its log_history. Train with "
            "logging_steps set, or describe the training in a YAML file (--yaml)."
        )
    steps = int(folders[-1].name.rpartition("-")[2])
    if max(logged) > steps:
        raise InvalidInput(
            f"{folders[-1] / TRAINER_STATE} logs a learning rate of step {max(logged)}, beyond "
            f"the last checkpoint of step {steps}. The folder mixes two trainings; keep one."
        )
    logged.setdefault(1, logged[min(logged)])
    logged.setdefault(steps, logged[max(logged)])
    moments = optimizer != "sgd" and all(
        second_moments_of(f).is_file() or convert_second_moments(f) is not None for f in folders
    )
    values = {
        "optimizer": {
            "name": optimizer,
            "weight_decay": weight_decay,
            "preconditioned": moments,
        },
        "batch_size": int(state.get("train_batch_size") or 1),
        "schedule": sorted(logged.items()),
        "checkpoints": [
            {"step": int(folder.name.rpartition("-")[2]), "folder": folder.name}
            for folder in folders
        ],
        "data_order": (directory / DATA_ORDER).is_file(),
    }
    return _checked(directory, parse_record(values, str(directory)))


def record_of_yaml(directory: Path, path: Path) -> TrainingRecord:
    """From a YAML file in the form of `TrainingRecord`.

    Its ``schedule`` may also be ``{kind: constant | linear | cosine, peak: …, warmup_steps: …}``.

    Args:
        directory: The folder of the checkpoints.
        path: The file.

    Raises:
        InvalidInput: The file cannot be read, or is no sound record.
    """
    try:
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"{path} cannot be read as YAML: {error}. Correct it.") from error
    if not isinstance(values, dict):
        raise InvalidInput(f"{path} is no mapping of names to values. See docs/training.md.")
    if isinstance(values.get("schedule"), dict):
        try:
            values["schedule"] = _named_schedule(
                values["schedule"], steps=int(values["checkpoints"][-1]["step"])
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InvalidInput(
                f"{path}: the schedule {values['schedule']} is not understood ({error}). Give "
                "kind (constant, linear or cosine), peak and warmup_steps, or points [step, rate]."
            ) from error
    return _checked(directory, parse_record(values, str(path)))


def _trainer_state(folder: Path) -> dict[str, Any]:
    path = folder / TRAINER_STATE
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}. Give the output_dir of transformers.Trainer, or "
            "describe the training in a YAML file (--yaml)."
        ) from error


def _named_schedule(wanted: dict[str, Any], *, steps: int) -> list[tuple[int, float]]:
    """As the schedules of transformers: up to the peak in a line, then as the kind says, to 0."""
    unknown = wanted.keys() - {"kind", "peak", "warmup_steps"}
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))} is unknown")
    peak, warmup = float(wanted["peak"]), int(wanted.get("warmup_steps", 0))
    shapes = {
        "constant": lambda share: 1.0,
        "linear": lambda share: 1 - share,
        "cosine": lambda share: 0.5 * (1 + math.cos(math.pi * share)),
    }
    shape = shapes[wanted["kind"]]

    def rate(step: int) -> float:
        done = step - 1  # updates before it
        if done < warmup:
            return peak * done / warmup
        return peak * shape((done - warmup) / max(1, steps - warmup))

    return [(step, rate(step)) for step in range(1, steps + 1)]


def _checked(directory: Path, record: TrainingRecord) -> TrainingRecord:
    check_checkpoints(directory, record)
    if record.data_order:
        for _ in data_order(directory, record):  # every line
            pass
    return record
