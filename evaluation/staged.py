"""Training in stages with its course on record, for methods that follow a training.

What SOURCE is for: training that ended early, and training whose later stage saw other data than
the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from evaluation.subject import Subject
from evaluation.unrolling import Step
from indexer.progress import Advance
from influence.task import Task


@dataclass(frozen=True)
class Regime:
    """How models are trained.

    Attributes:
        name: For people.
        epochs: Of each stage; each has the same share of the examples.
        segments: That SOURCE cuts training into, each of as many steps.
        checkpoints: Kept in all, at equal distances; the last is the trained model.
    """

    name: str
    epochs: tuple[int, ...]
    segments: int = 3
    checkpoints: int = 6

    def marks(self, steps: int) -> list[int]:
        """The steps after which a checkpoint is kept."""
        return [round(steps * (c + 1) / self.checkpoints) for c in range(self.checkpoints)]


@dataclass(frozen=True)
class Checkpoint:
    """A model in training.

    Attributes:
        step: It was kept after.
        parameters: By name.
        second_moments: Adam's, by name, corrected for their start at 0; empty under SGD.
    """

    step: int
    parameters: dict[str, Tensor]
    second_moments: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Course:
    """One training on everything.

    Attributes:
        checkpoints: The last one trained.
        initial: Parameters before the first step.
        steps: Examples and learning rate of each.
    """

    checkpoints: tuple[Checkpoint, ...]
    initial: dict[str, Tensor]
    steps: tuple[Step, ...]


class StagedTask(Protocol):
    """Data, and training that follows a regime."""

    regime: Regime

    @property
    def stage_of(self) -> np.ndarray:
        """The stage of each example, ``[N]``."""
        ...

    @property
    def protocol(self) -> str:
        """What is trained on what, for people."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of the optimiser."""
        ...

    @property
    def step_length(self) -> float:
        """How many learning rates a step is long in the end: ``1 / (1 - β)`` with momentum β."""
        ...

    def outputs(
        self, subsets: np.ndarray, seeds: Sequence[Sequence[int]], *, advance: Advance = ...
    ) -> np.ndarray:
        """Measured after training on each subset, the mean over its seeds, ``[S, Q]``."""
        ...

    def courses(self, seeds: Sequence[int]) -> list[Course]:
        """Trainings on all examples, one for each seed."""
        ...

    def described(self, subsets: np.ndarray, seed: int) -> dict[str, Any]:
        """Everything that decides the scores of one training and what they are judged by."""
        ...

    def subject(self, checkpoint: Checkpoint) -> Subject:
        """A model of a course, with the examples and the queries."""
        ...

    def curvature_loss(self, subject: Subject) -> Task:
        """The loss whose examples' gradients, squared, are the curvature."""
        ...

    def unrolled(self, course: Course, chosen: np.ndarray) -> Tensor:
        """Exact unrolled differentiation of a run for chosen queries, ``[·, N]``."""
        ...


def halves_of_stages(stage_of: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Random halves of the examples ``[N]`` of every stage, ``[S, N]`` bool."""
    draw = np.random.default_rng(seed)
    chosen = np.zeros((count, len(stage_of)), dtype=bool)
    for stage in np.unique(stage_of):
        own = np.flatnonzero(stage_of == stage)
        for row in chosen:
            row[draw.permutation(own)[: len(own) // 2]] = True
    return chosen
