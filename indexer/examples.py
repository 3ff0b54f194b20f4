"""Fit a basis on the examples of any task: images, labelled texts, whatever the task batches."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from indexer.fit import Fitted, fit_basis
from indexer.progress import Reporter
from influence.encoder import LanguageModelLoss
from influence.manifest import IndexSettings
from influence.task import Task


@dataclass(frozen=True)
class _Boxed:
    """An example with what it costs in a batch."""

    content: Any
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass(frozen=True)
class _Item:
    """An example as `indexer.batches` knows it."""

    id: str
    tokens: Any


class _BoxedTask:
    """A task whose examples come boxed."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def model(self) -> Any:
        return self._task.model

    @property
    def device(self) -> torch.device:
        return self._task.device

    @property
    def product_dtype(self) -> torch.dtype:
        return self._task.product_dtype

    def batch(self, examples: Sequence[_Boxed]) -> Any:
        return self._task.batch([example.content for example in examples])

    def losses(self, batch: Any) -> Tensor:
        return self._task.losses(batch)

    def measurements(self, batch: Any) -> Tensor:
        return self._task.measurements(batch)

    def size(self, example: _Boxed) -> int:
        return example.size


def fit_examples(
    task: Task,
    examples: Sequence[Any],
    settings: IndexSettings,
    *,
    reporter: Reporter | None = None,
) -> Fitted:
    """Fit a basis on examples of a task.

    Args:
        task: Model and loss.
        examples: A random sample of the training set, in random order; all of them are used for
            the curvature, ``settings.fit_tokens`` of them (by `Task.size`) for the projections.
        settings: Rank, dims, dampings, layers; ``batch_tokens`` is the sum of sizes in a batch.
        reporter: Told how far the work is; silent by default.

    Raises:
        InvalidInput: Examples in one batch influence each other's gradients.
        NumericalError: No example has a finite gradient, or a covariance will not decompose.
        UnknownLayers: A pattern of the settings matches nothing, or no layer is reached.
    """
    # Token sequences know their length by themselves, and drawn labels need the bare task.
    boxed = not isinstance(task, LanguageModelLoss)
    items = [
        _Item(f"example {number}", _Boxed(example, task.size(example)) if boxed else example)
        for number, example in enumerate(examples)
    ]
    with tempfile.TemporaryDirectory() as folder:
        return fit_basis(
            _BoxedTask(task) if boxed else task,
            items,
            settings,
            spool=Path(folder) / "spool",
            reporter=reporter or Reporter(Console(quiet=True)),
        )
