"""How a model was trained, step by step: `training.json` beside its checkpoints.

What SOURCE has to know of a training (`influence.unrolled`) and nobody should have to write down
again: which checkpoint is of which step, the learning rates, the optimiser, and which document was
seen when. `whence record` makes it from what a trainer left (`indexer.record_import`).

    CHECKPOINTS/
      training.json             this record
      data_order.jsonl          {"steps": [1, 50], "documents": ["a", "b"]}, a line for each run of
                                steps: in each of them a share of these documents was seen. A line
                                for one step names its batch; one for many, a pass over a corpus.
      checkpoint-100/           a model folder each
      checkpoint-100.second_moments.safetensors
                                Adam's, by the names of the parameters, where they are to
                                precondition
"""

import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from influence.atomic import write_bytes
from influence.errors import InvalidInput

RECORD = "training.json"
DATA_ORDER = "data_order.jsonl"
SECOND_MOMENTS = ".second_moments.safetensors"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Optimizer(_Frozen):
    """What turned gradients into steps."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Heavy ball, of SGD.")
    weight_decay: NotNegative = 0.0
    epsilon: Positive = Field(
        default=1e-8, description="Added to the root of Adam's second moments."
    )
    preconditioned: bool = Field(
        default=False,
        description="Every checkpoint has its second moments, and they are to be used.",
    )


class Checkpoint(_Frozen):
    """A model of one step."""

    step: int = Field(ge=0)
    folder: str = Field(description="Beside the record.")


class Stage(_Frozen):
    """Steps of one purpose, such as pre-training; those after the stage before."""

    name: str
    last_step: int = Field(ge=1)


class TrainingRecord(_Frozen):
    """See the module."""

    format_version: Literal[1] = 1
    optimizer: Optimizer = Optimizer()
    batch_size: int = Field(ge=1, description="Examples of a step, all devices together.")
    averaged: Literal["token", "example"] = Field(
        "token", description="What the training loss is the mean over."
    )
    schedule: tuple[tuple[int, NotNegative], ...] = Field(
        min_length=1, description="Step and its learning rate; straight lines in between."
    )
    checkpoints: tuple[Checkpoint, ...] = Field(
        min_length=1, description="By step; the last is the trained model."
    )
    stages: tuple[Stage, ...] = ()
    data_order: bool = Field(
        False, description="Whether data_order.jsonl says which document was seen when."
    )

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.checkpoints[-1].step

    def learning_rates(self, first: int, last: int) -> float:
        """Sum over the steps ``first … last``, both included."""
        return sum(self.learning_rate(step) for step in range(first, last + 1))

    def learning_rate(self, step: int) -> float:
        """Of one step, the first of which is 1."""
        at = bisect_right([point for point, _ in self.schedule], step)
        if at == 0 or at == len(self.schedule):
            return self.schedule[min(at, len(self.schedule) - 1)][1]
        (left, low), (right, high) = self.schedule[at - 1], self.schedule[at]
        return low + (high - low) * (step - left) / (right - left)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for what, steps in (
            ("checkpoints", [c.step for c in self.checkpoints]),
            ("points of the schedule", [step for step, _ in self.schedule]),
            ("stages", [stage.last_step for stage in self.stages]),
        ):
            for before, after in pairwise(steps):
                if after <= before:
                    raise ValueError(
                        f"the {what} go from step {before} to step {after}; steps must rise"
                    )
        return self

    @model_validator(mode="after")
    def _one_training(self) -> Self:
        first, last = self.schedule[0][0], self.schedule[-1][0]
        if len(self.schedule) > 1 and (first > 1 or last < self.steps):
            raise ValueError(
                f"the schedule is of steps {first} to {last}, and the last checkpoint of step "
                f"{self.steps}; a schedule begins at step 0 or 1 and reaches the last checkpoint"
            )
        if self.steps == 0:
            raise ValueError("the last checkpoint is of step 0, before any training")
        if self.learning_rates(1, self.steps) == 0:
            raise ValueError("the learning rate is 0 at every step; nothing was learnt")
        if self.stages and self.stages[-1].last_step != self.steps:
            raise ValueError(
                f"the last stage ends at step {self.stages[-1].last_step}, and the last checkpoint "
                f"is of step {self.steps}"
            )
        if self.optimizer.preconditioned and self.optimizer.name == "sgd":
            raise ValueError("SGD has no second moments to precondition with")
        return self


@dataclass(frozen=True)
class SeenDocuments:
    """A line of the data order: what was seen from step ``first`` to ``last``, evenly."""

    first: int
    last: int
    documents: tuple[str, ...]


def parse_record(values: Any, where: str) -> TrainingRecord:
    """Check what a file says.

    Raises:
        InvalidInput: It is no record, or contradicts itself.
    """
    try:
        return TrainingRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidInput(
            f"{where} is no sound record of a training: {f'{place}: ' if place else ''}{message}. "
            "Correct it, or make it again with whence record."
        ) from error


def read_record(directory: Path) -> TrainingRecord:
    """The record in a folder of checkpoints, whose folders must be there.

    Raises:
        InvalidInput: There is none, it is not sound, or a checkpoint is missing.
    """
    path = directory / RECORD
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{path} is missing: nothing says how the checkpoints came about. Make it with "
            f"`whence record {directory}`."
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error}. Make it again with whence record."
        ) from error
    record = parse_record(values, str(path))
    check_checkpoints(directory, record)
    return record


def check_checkpoints(directory: Path, record: TrainingRecord) -> None:
    """See that the folder of every checkpoint is there, with second moments if they are needed.

    Raises:
        InvalidInput: One is not.
    """
    for checkpoint in record.checkpoints:
        folder = directory / checkpoint.folder
        if not any(folder.glob("*.safetensors")):
            raise InvalidInput(
                f"The checkpoint of step {checkpoint.step} has no weights in {folder}. Put "
                "model.safetensors back, or take the checkpoint out of the record."
            )
        if record.optimizer.preconditioned and not second_moments_of(folder).is_file():
            raise InvalidInput(
                f"The checkpoint of step {checkpoint.step} has no second moments: "
                f"{second_moments_of(folder)} is missing. They are written while training "
                "(docs/training.md)."
            )


def second_moments_of(folder: Path) -> Path:
    """Beside the folder of a checkpoint, since they are no part of the model."""
    return folder.with_name(folder.name + SECOND_MOMENTS)


def write_record(directory: Path, record: TrainingRecord) -> Path:
    """Write the record, whole or not at all."""
    path = directory / RECORD
    write_bytes(path, record.model_dump_json(indent=1).encode() + b"\n")
    return path


def data_order(directory: Path, record: TrainingRecord) -> Iterator[SeenDocuments]:
    """The lines of the data order, in their order.

    Raises:
        InvalidInput: The file is missing, a line cannot be read, or its steps are not those of the
            training.
    """
    path = directory / DATA_ORDER
    if not path.is_file():
        raise InvalidInput(
            f"{path} is missing, and the record says that it holds the data order. Put it back, "
            "or make the record again without one."
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                values = json.loads(line)
                first, last = values["steps"]
                seen = SeenDocuments(int(first), int(last), tuple(map(str, values["documents"])))
            except (ValueError, TypeError, KeyError) as error:
                raise InvalidInput(
                    f"{path}, line {number} is no {{'steps': [first, last], 'documents': [ids]}} "
                    f"({type(error).__name__}). Correct the line."
                ) from error
            if not 1 <= seen.first <= seen.last <= record.steps or not seen.documents:
                raise InvalidInput(
                    f"{path}, line {number} tells {len(seen.documents)} documents of the steps "
                    f"{seen.first} to {seen.last}, and training has the steps 1 to {record.steps}. "
                    "Correct the line."
                )
            yield seen
