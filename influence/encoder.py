"""From examples to vectors: one forward and one backward pass of the frozen model.

What an example is, and what its loss, is the task's business (`influence.task`): token sequences of
a causal language model, or anything else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from influence.basis import Basis
from influence.capture import frozen, shared_inputs
from influence.layers import LinearLayer
from influence.model import LoadedModel
from influence.projection import ProjectionReceiver
from influence.task import Task, run_backward
from influence.task_causal import Batch, LanguageModelLoss

__all__ = ["Batch", "Encoded", "GradientEncoder", "LanguageModelLoss", "as_task", "run_backward"]


@dataclass(frozen=True)
class Encoded:
    """What one pass gives.

    Attributes:
        vectors: Stored vectors before normalisation, ``[B, D]`` float32; their inner product with
            a query's is the influence, positive for a proponent.
        losses: Loss of each example, summed over its targets, ``[B]``; of a text in nats.
        target_tokens: Number of targets of each example, ``[B]``.
    """

    vectors: Tensor
    losses: Tensor
    target_tokens: Tensor


def as_task(source: LoadedModel | Task) -> Task:
    """A loaded model as the causal language model it is; any other task as it stands."""
    return LanguageModelLoss(source) if isinstance(source, LoadedModel) else source


def input_leaders(loaded: LoadedModel, layers: Sequence[LinearLayer]) -> dict[str, str]:
    """Which layers of a language model read the same input (`capture.shared_inputs`)."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=loaded.device)
    with frozen(loaded.model), loaded.autocast():
        return shared_inputs(
            loaded.model, layers, lambda: loaded.model(input_ids=ids, use_cache=False)
        )


class GradientEncoder:
    """Turns examples into vectors of one basis.

    Args:
        source: A causal language model, or any task.
        basis: Fitted on examples of this task.
    """

    def __init__(self, source: LoadedModel | Task, basis: Basis) -> None:
        self.task = as_task(source)
        self.basis = basis.to(self.task.device)
        self._layers = [layer.layer for layer in basis.layers]
        self._projections = self.basis.projections(self.task.product_dtype)

    @property
    def loss(self) -> LanguageModelLoss:
        """The task of a causal language model.

        Raises:
            TypeError: It is another one.
        """
        if not isinstance(self.task, LanguageModelLoss):
            raise TypeError(f"{type(self.task).__name__} is no causal language model.")
        return self.task

    @property
    def loaded(self) -> LoadedModel:
        """The causal language model; raises `TypeError` for any other task."""
        return self.loss.loaded

    def coordinates(
        self, examples: Sequence[Any], *, measured: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Projected gradients before any whitening, ``[B, K]``, and losses, ``[B]``."""
        return self._coordinates(self.task.batch(examples), measured=measured)

    def _coordinates(self, batch: Any, *, measured: bool) -> tuple[Tensor, Tensor]:
        receiver = ProjectionReceiver(self._projections, batch.size, self.task.device)
        losses = run_backward(
            self.task, batch, self._layers, self.basis.leaders, receiver, measured=measured
        )
        return receiver.coordinates, losses

    def encode(self, examples: Sequence[Any], *, measured: bool = False) -> Encoded:
        """Vectors, losses and target counts of a batch.

        Args:
            examples: What the task takes; for a causal language model token sequences.
            measured: Encode them as queries, by the task's measurement instead of its loss.
        """
        batch = self.task.batch(examples)
        coordinates, losses = self._coordinates(batch, measured=measured)
        return Encoded(self.basis.whitened(coordinates), losses, batch.target_counts)

    def vectors(
        self, examples: Sequence[Any], *, batch: int = 64, measured: bool = False
    ) -> Tensor:
        """Vectors of any number of examples, ``[N, D]`` float32, ``batch`` of them a pass.

        The scores of queries with training examples are ``queries @ training.T``; positive where
        training on the example made the query's loss (or measurement) smaller.
        """
        parts = [
            self.encode(examples[start : start + batch], measured=measured).vectors
            for start in range(0, len(examples), batch)
        ]
        return torch.cat(parts)
