"""What influence is compared with on equal terms, beyond gradients solved with a curvature.

Representation   cosine of what the last attributed layer reads
Trak             TRAK (Park et al. 2023, arXiv 2303.14186): randomly projected gradients of the
                 measurement, their covariance inverted, weighted by how wrong the model still is
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evaluation.methods import Dampings, Scores, relative
from evaluation.subject import Subject
from influence.capture import frozen


@dataclass(frozen=True)
class Representation:
    """Similarity of hidden states: what a model finds alike, whether it learnt it or not."""

    name: str = "representation cosine"
    grid: tuple[Dampings, ...] = (Dampings(),)

    def fit(self, subject: Subject) -> "RepresentationScores":
        """Hidden states of the examples."""
        return RepresentationScores(subject)


class RepresentationScores:
    """`Representation` of one subject."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        begun = time.perf_counter()
        self._training = self.capture(subject.examples)
        self.seconds = time.perf_counter() - begun
        self.bytes_a_passage = 4 * self._training.shape[1]

    def capture(self, queries: Sequence[Any]) -> Tensor:
        """Input of the last attributed layer, mean over positions, unit length: ``[n, d]``."""
        task = self._subject.task
        layer = task.model.get_submodule(self._subject.whole.layers[-1].name)
        read: list[Tensor] = []
        hook = layer.register_forward_pre_hook(
            lambda _, inputs: read.append(inputs[0].detach().flatten(0, -2).mean(dim=0).double())
        )
        try:
            with frozen(task.model), torch.no_grad():
                for query in queries:  # alone: no padding to leave out
                    task.losses(task.batch([query]))
        finally:
            hook.remove()
        return torch.nn.functional.normalize(torch.stack(read))

    def scores(self, queries: Tensor, dampings: Dampings) -> Scores:
        """Cosines."""
        cosines = (queries @ self._training.T).numpy()
        return Scores(cosines, cosines)


@dataclass(frozen=True)
class Trak:
    """TRAK.

    For a classifier, whose loss has the gradient ``(1 - p) ∇(-margin)``, the weight is ``1 - p``;
    where the measurement is the loss itself it is 1.

    Attributes:
        name: In the table.
        dims: Of the random projection.
        dampings: Fractions of the mean eigenvalue of the covariance.
        seed: Of the projection.
    """

    name: str = "TRAK"
    dims: int = 512
    dampings: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    seed: int = 0

    @property
    def grid(self) -> list[Dampings]:
        """One layer damping each."""
        return [Dampings(layer=c) for c in self.dampings]

    def fit(self, subject: Subject) -> "TrakScores":
        """Projected gradients of the measurement of every example, and their covariance."""
        return TrakScores(self, subject)


class TrakScores:
    """`Trak` of one subject."""

    def __init__(self, method: Trak, subject: Subject) -> None:
        self._subject = subject
        begun = time.perf_counter()
        gradients = subject.gradients(subject.examples, measured=True)
        generator = torch.Generator().manual_seed(method.seed)
        width = gradients.shape[1]
        drawn = torch.randn(width, method.dims, generator=generator)
        self._projection = drawn / math.sqrt(method.dims)
        self._training = self._projected(gradients)  # [N, k]
        losses = subject.training.gradients.norm(dim=1).double()
        self._weights = losses / gradients.norm(dim=1).double().clamp(min=1e-30)  # [N]
        covariance = self._training.T @ self._training / len(self._training)
        self._values, self._vectors = torch.linalg.eigh(covariance)
        self.seconds = time.perf_counter() - begun + subject.training.seconds
        self.bytes_a_passage = 4 * method.dims + 4

    def _projected(self, gradients: Tensor) -> Tensor:
        return (gradients @ self._projection).double()

    def capture(self, queries: Sequence[Any]) -> Tensor:
        """Projected gradients of the measurement, ``[Q, k]``."""
        return self._projected(self._subject.gradients(queries, measured=True))

    def scores(self, queries: Tensor, dampings: Dampings) -> Scores:
        """``φ_qᵀ (ΦᵀΦ / N + λI)⁻¹ φ_z (1 - p_z)``."""
        positive = self._values.clamp(min=0)
        damped = positive + dampings.layer * positive.mean()
        asked, train = queries @ self._vectors, self._training @ self._vectors
        influence = (asked / damped) @ train.T * self._weights
        energies = [(rows.square() / damped).sum(dim=1) for rows in (asked, train)]
        cosines = relative(influence, energies[0], energies[1] * self._weights.square())
        return Scores(influence.numpy(), cosines.numpy())
