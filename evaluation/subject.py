"""What the methods are asked about: a trained model, its training examples and its queries.

Any task will do (`influence.task`). Gradients of every weight of the attributed layers are those
of a basis whose projections are the identity, so reference methods and Whence see the same
gradients, taken by the same hooks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from indexer.fit import fit_basis
from indexer.progress import Silence
from influence.basis import Basis, LayerBasis
from influence.encoder import GradientEncoder
from influence.layers import LinearLayer, select_layers
from influence.manifest import IndexSettings
from influence.task import Task, reached_layers

EXAMPLES_PER_BATCH = 60
UNSKETCHED = 2**40  # dims beyond any number of coordinates


@dataclass(frozen=True)
class Subject:
    """A model and what is asked about it.

    Attributes:
        task: The trained model with its loss.
        examples: What it was trained on, N.
        queries: What is explained, Q.
    """

    task: Task
    examples: Sequence[Any]
    queries: Sequence[Any]

    def fit(self, settings: IndexSettings) -> Basis:
        """The basis of an index of all examples, by the indexer's own fit."""
        with TemporaryDirectory() as folder:
            spool = Path(folder) / "gradients"
            fitted = fit_basis(self.task, self.examples, settings, spool=spool, reporter=Silence())
        return fitted.basis

    def vectors(self, basis: Basis) -> tuple[Tensor, Tensor]:
        """Vectors of the examples' losses ``[N, D]``, of the measurements ``[Q, D]``; float32."""
        encoder = GradientEncoder(self.task, basis)
        train = [encoder.encode(part).vectors for part in _in_batches(self.examples)]
        queries = [
            encoder.encode(part, measured=True).vectors for part in _in_batches(self.queries)
        ]
        return torch.cat(train), torch.cat(queries)

    def gradients(self) -> tuple[Tensor, Tensor]:
        """Of every weight: of the examples' losses ``[N, k]``, of the measurements ``[Q, k]``.

        Float32. The layers stand one after the other, each ``[d_out, d_in]``.
        """
        layers = select_layers(self.task.model, ("*",))
        reached = reached_layers(self.task, layers, self.examples[0])
        whole = tuple(_whole(layer, reached.leaders[layer.name]) for layer in reached.layers)
        # Nothing is whitened: eigenvalues of 1, and a damping that is lost beside them.
        return self.vectors(Basis(whole, damping=1e-30, dims=UNSKETCHED, seed=0))


def _in_batches(examples: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(examples), EXAMPLES_PER_BATCH):
        yield examples[start : start + EXAMPLES_PER_BATCH]


def _whole(layer: LinearLayer, leader: str) -> LayerBasis:
    return LayerBasis(
        layer.name,
        leader,
        torch.eye(layer.d_in),
        torch.eye(layer.d_out),
        torch.ones(layer.d_out, layer.d_in, dtype=torch.float64),
    )
