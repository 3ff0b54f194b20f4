"""What the methods are asked about: a trained model, its training examples and its queries.

Any task will do (`influence.task`). Gradients of every weight of the attributed layers are those
of a basis whose projections are the identity, so reference methods and Whence see the same
gradients, taken by the same hooks.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from indexer.examples import fit_examples
from influence.basis import Basis, LayerBasis
from influence.encoder import GradientEncoder
from influence.layers import LinearLayer, select_layers
from influence.manifest import IndexSettings
from influence.task import Task, reached_layers

UNSKETCHED = 2**40  # dims beyond any number of coordinates


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and what is asked about it.

    Attributes:
        task: The trained model with its loss.
        examples: What it was trained on, N.
        queries: What is explained, Q.
        gauss_newton: Makes rows ``R`` with ``RᵀR / N`` the Gauss-Newton matrix; where there is
            none, it is not among the references.
        layers: Patterns of the attributed ones.
    """

    task: Task
    examples: Sequence[Any]
    queries: Sequence[Any] = ()
    gauss_newton: Callable[["Subject"], Tensor] | None = None
    layers: tuple[str, ...] = ("*",)

    @cached_property
    def whole(self) -> Basis:
        """The identity on every weight of the attributed layers."""
        layers = select_layers(self.task.model, self.layers)
        reached = reached_layers(self.task, layers, self.examples[0])
        whole = tuple(_whole(layer, reached.leaders[layer.name]) for layer in reached.layers)
        return Basis(whole, damping=1.0, dims=UNSKETCHED, seed=0)

    def gradients(
        self, examples: Sequence[Any], *, task: Task | None = None, measured: bool = False
    ) -> Tensor:
        """Gradients of every weight, ``[n, k]`` float32: the layers one after the other.

        Args:
            examples: Of which the gradients are taken.
            task: Another loss of the same model.
            measured: Of the measurement instead of the loss.
        """
        return _coordinates(task or self.task, self.whole, examples, measured=measured)

    @cached_property
    def training(self) -> "Timed":
        """`gradients` of the examples."""
        begun = time.perf_counter()
        gradients = self.gradients(self.examples)
        return Timed(gradients, time.perf_counter() - begun)


@dataclass(frozen=True)
class Timed:
    """Gradients, and how long they took."""

    gradients: Tensor
    seconds: float


@dataclass(frozen=True)
class Captured:
    """A basis fitted on a subject's examples, and their projected gradients.

    Attributes:
        task: Of the subject.
        basis: As the indexer fits it, but not sketched; its dampings are to be replaced.
        training: ``[N, K]``, before any whitening.
        seconds: That fit and gradients took.
        logging_seconds: That the gradients took.
    """

    task: Task
    basis: Basis
    training: Tensor
    seconds: float
    logging_seconds: float

    def coordinates(self, queries: Sequence[Any]) -> Tensor:
        """Projected gradients of the measurement of queries, ``[Q, K]``."""
        return _coordinates(self.task, self.basis, queries, measured=True)


def captured(subject: Subject, settings: IndexSettings) -> Captured:
    """Fit a basis on all examples by the indexer's own fit, and take their gradients."""
    return _captured(subject, settings.model_dump_json())


@lru_cache(maxsize=1)  # methods that differ in dims or dampings alone come one after the other
def _captured(subject: Subject, settings_json: str) -> Captured:
    settings = IndexSettings.model_validate_json(settings_json)
    begun = time.perf_counter()
    basis = fit_examples(subject.task, subject.examples, settings).basis
    fitted = time.perf_counter()
    training = _coordinates(subject.task, basis, subject.examples)
    done = time.perf_counter()
    return Captured(subject.task, basis, training, done - begun, done - fitted)


def _coordinates(
    task: Task, basis: Basis, examples: Sequence[Any], *, measured: bool = False, batch: int = 64
) -> Tensor:
    encoder = GradientEncoder(task, basis)
    parts = [
        encoder.coordinates(examples[start : start + batch], measured=measured)[0]
        for start in range(0, len(examples), batch)
    ]
    return torch.cat(parts)


def _whole(layer: LinearLayer, leader: str) -> LayerBasis:
    return LayerBasis(
        layer.name,
        leader,
        torch.eye(layer.d_in),
        torch.eye(layer.d_out),
        torch.ones(layer.d_out, layer.d_in, dtype=torch.float64),
    )
