"""The methods on equal terms: each turns a subject into scores ``[Q, N]``.

    Lexical        token overlap (BM25), which knows nothing of the model
    Drawn          random numbers, the floor
    FullGradient   gradients of every weight: dot product, cosine, exact solves and solvers
    Projected      an index of Whence: any rank, curvature, projection, dims; full-size EK-FAC is
                   the one whose ranks are the layers' widths

A method has a grid of dampings. Which of them counts is not its own business: it is picked on
queries other than those reported on (`evaluation.comparison`).
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from evaluation.lexical import bm25_scores
from evaluation.reference import conjugate_gradients, lissa
from evaluation.span import Span
from evaluation.subject import UNSKETCHED, Captured, Subject, captured
from influence.basis import Basis
from influence.errors import InvalidInput
from influence.manifest import IndexSettings
from influence.whitening import LowRankWhitening


@dataclass(frozen=True)
class Dampings:
    """``c`` and ``c₂``; NaN where a method has none, infinity where the joint one is off."""

    layer: float = math.nan
    joint: float = math.nan


@dataclass(frozen=True)
class Scores:
    """Of every training example for every query, ``[Q, N]``.

    Attributes:
        influence: In nats, positive for a proponent.
        relative: Divided by both norms.
    """

    influence: np.ndarray
    relative: np.ndarray


class Fitted(Protocol):
    """A method that has seen the training examples."""

    seconds: float
    bytes_a_passage: int

    def capture(self, queries: Sequence[Any]) -> Any:
        """What is needed of queries: their gradients."""
        ...

    def scores(self, queries: Any, dampings: Dampings) -> Scores:
        """From what `capture` gave."""
        ...


class Method(Protocol):
    """See the module."""

    @property
    def name(self) -> str:
        """In the table."""
        ...

    @property
    def grid(self) -> Sequence[Dampings]:
        """Dampings to pick from."""
        ...

    def fit(self, subject: Subject) -> Fitted:
        """Everything that does not depend on queries."""
        ...


def relative(influence: Tensor, query_energy: Tensor, train_energy: Tensor) -> Tensor:
    """``[Q, N]`` divided by the roots of self-influences ``[Q]`` and ``[N]``; 0 where one is 0."""
    norms = (query_energy[:, None] * train_energy[None, :]).clamp(min=0).sqrt()
    return torch.where(norms > 0, influence / norms.clamp(min=1e-300), 0.0)


class FixedScores:
    """Scores that need no fit."""

    def __init__(self, make: Callable[[Sequence[Any]], np.ndarray], bytes_a_passage: int) -> None:
        self.seconds = 0.0
        self.bytes_a_passage = bytes_a_passage
        self._make = make

    def capture(self, queries: Sequence[Any]) -> np.ndarray:
        """The scores themselves, ``[Q, N]``."""
        return self._make(queries)

    def scores(self, queries: np.ndarray, dampings: Dampings) -> Scores:
        """As they are."""
        return Scores(queries, queries)


@dataclass(frozen=True)
class Lexical:
    """BM25 over token ids."""

    name: str = "token overlap (BM25)"
    grid: tuple[Dampings, ...] = (Dampings(),)

    def fit(self, subject: Subject) -> FixedScores:
        """Token ids of the documents; 4 bytes each."""
        documents = [example.input_ids for example in subject.examples]
        size = round(4 * sum(map(len, documents)) / len(documents))
        return FixedScores(
            lambda queries: bm25_scores([query.input_ids for query in queries], documents), size
        )


@dataclass(frozen=True)
class Drawn:
    """Standard normal numbers."""

    name: str = "random"
    grid: tuple[Dampings, ...] = (Dampings(),)

    def fit(self, subject: Subject) -> FixedScores:
        """Nothing is kept."""
        shape = (len(subject.examples),)
        return FixedScores(
            lambda queries: np.random.default_rng(0).normal(size=(len(queries), *shape)), 0
        )


# (eigenvalues [m] of H, vectors [Q, m] in its eigenbasis, λ) -> (H + λI)⁻¹ v for every v
Solver = Callable[[Tensor, Tensor, float], Tensor]

CG_STEPS = 20
LISSA_STEPS = 500


def exact(eigenvalues: Tensor, vectors: Tensor, damping: float) -> Tensor:
    """``(H + λI)⁻¹ v``: in its eigenbasis a division."""
    return vectors / (eigenvalues + damping)


def by_conjugate_gradients(eigenvalues: Tensor, vectors: Tensor, damping: float) -> Tensor:
    """`CG_STEPS` products with the curvature."""
    return conjugate_gradients(
        lambda v: v * eigenvalues, vectors, damping=damping, iterations=CG_STEPS
    )


def by_lissa(eigenvalues: Tensor, vectors: Tensor, damping: float) -> Tensor:
    """`LISSA_STEPS` products with the curvature, at the smallest scale that is safe.

    The steps are linear, and in the eigenbasis they keep coordinates apart, so those of a vector of
    ones show what they do to every vector.
    """
    scale = float(eigenvalues.max()) + damping
    ones = torch.ones(1, len(eigenvalues), dtype=vectors.dtype)
    return vectors * lissa(
        lambda v: v * eigenvalues, ones, damping=damping, scale=scale, iterations=LISSA_STEPS
    )


@dataclass(frozen=True)
class FullGradient:
    """Gradients of every weight, solved with the curvature of all examples.

    Attributes:
        name: In the table.
        solver: None is the gradient dot product.
        gauss_newton: Curvature from the subject's Gauss-Newton rows; else from the gradients of the
            examples themselves (empirical Fisher).
        cosine: Its influence is the relative one.
        dampings: ``c``: fractions of the mean eigenvalue of the curvature.
    """

    name: str
    solver: Solver | None = None
    gauss_newton: bool = False
    cosine: bool = False
    dampings: tuple[float, ...] = (math.nan,)

    @property
    def grid(self) -> list[Dampings]:
        """One layer damping each."""
        return [Dampings(layer=c) for c in self.dampings]

    def fit(self, subject: Subject) -> "FullGradientScores":
        """Gradients, and their curvature in their span."""
        return FullGradientScores(self, subject)


class FullGradientScores:
    """`FullGradient` of one subject."""

    def __init__(self, method: FullGradient, subject: Subject) -> None:
        self._subject = subject
        self._method = method
        gradients = subject.training.gradients
        self._span, seconds = span_of(subject, gauss_newton=method.gauss_newton)
        self._training = self._span.coordinates(gradients)
        self.seconds = seconds + subject.training.seconds
        self.bytes_a_passage = 4 * gradients.shape[1]

    def capture(self, queries: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """In the span ``[Q, m]``, and the squared norm of what stands out of it, ``[Q]``."""
        gradients = self._subject.gradients(queries, measured=True)
        inside = self._span.coordinates(gradients)
        energy = gradients.double().square().sum(dim=1)
        return inside, (energy - inside.square().sum(dim=1)).clamp(min=0)

    def scores(self, queries: tuple[Tensor, Tensor], dampings: Dampings) -> Scores:
        """``g_qᵀ (H + λI)⁻¹ g_z``; divided by the roots of the same product on either side."""
        (inside, outside), train = queries, self._training
        solved, solved_train = inside, train
        if solver := self._method.solver:
            damping = dampings.layer * self._span.mean_eigenvalue
            solved = solver(self._span.eigenvalues, inside, damping)
            solved_train = solver(self._span.eigenvalues, train, damping)
            outside = outside / damping
        influence = solved @ train.T
        energy = (solved * inside).sum(dim=1) + outside
        cosines = relative(influence, energy, (solved_train * train).sum(dim=1))
        if self._method.cosine:
            influence = cosines
        return Scores(influence.numpy(), cosines.numpy())


@lru_cache(maxsize=1)  # all solvers of one curvature share it
def span_of(subject: Subject, *, gauss_newton: bool) -> tuple[Span, float]:
    """Of a subject's training gradients and its curvature, and the seconds that it took.

    Raises:
        InvalidInput: The Gauss-Newton matrix is asked for and the subject cannot make its rows.
    """
    gradients = subject.training.gradients
    begun = time.perf_counter()
    if not gauss_newton:
        return Span(gradients), time.perf_counter() - begun
    if subject.gauss_newton is None:
        raise InvalidInput(
            f"{type(subject.task).__name__} has no Gauss-Newton matrix: its labels cannot be "
            "drawn. Use the empirical Fisher."
        )
    span = Span(gradients, subject.gauss_newton(subject))
    return span, time.perf_counter() - begun


LAYER_DAMPINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class Projected:
    """An index of Whence.

    Attributes:
        name: In the table.
        settings: Rank, dims, curvature, projection, labels, layers; not the dampings.
        dampings: ``c`` to pick from.
        joint_dampings: ``c₂`` to pick from; infinity is off.
    """

    name: str
    settings: IndexSettings
    dampings: tuple[float, ...] = LAYER_DAMPINGS
    joint_dampings: tuple[float, ...] = (math.inf,)

    @property
    def grid(self) -> list[Dampings]:
        """Every pair."""
        return [Dampings(*pair) for pair in itertools.product(self.dampings, self.joint_dampings)]

    @property
    def bare(self) -> IndexSettings:
        """What the fit depends on: methods of the same one share it."""
        return self.settings.model_copy(
            update={"dims": UNSKETCHED, "damping": 1.0, "joint_damping": math.inf}
        )

    def fit(self, subject: Subject) -> "ProjectedScores":
        """The indexer's own fit on all examples, and their projected gradients."""
        dims = self.settings.dims
        assert dims != "auto"  # what it would be depends on a corpus that is to be indexed
        return ProjectedScores(captured(subject, self.bare), dims=dims)


class ProjectedScores:
    """`Projected` of one subject; changing a damping costs no pass of the model."""

    def __init__(self, captured: Captured, *, dims: int) -> None:
        self._captured = captured
        self._dims = dims
        self._sketched: tuple[float, Tensor] | None = None
        self._joint: tuple[float, LowRankWhitening] | None = None
        self.seconds = captured.seconds
        self.bytes_a_passage = 2 * min(dims, captured.basis.coordinates) + 4

    def capture(self, queries: Sequence[Any]) -> Tensor:
        """Projected gradients, ``[Q, K]``."""
        return self._captured.coordinates(queries)

    def scores(self, queries: Tensor, dampings: Dampings) -> Scores:
        """As a search gives them: fp16 unit vectors of passages, a float32 norm beside each."""
        basis = replace(self._captured.basis, damping=dampings.layer, dims=self._dims, joint=None)
        training, asked = self._training(basis), basis.sketched(queries)
        if not math.isinf(dampings.joint):
            joint = replace(self._fitted_joint(basis), damping=dampings.joint)
            training, asked = joint.forward(training), joint.forward(asked)
        norms = training.norm(dim=1).clamp(min=1e-30)
        units = (training / norms[:, None]).half().float()
        products = asked @ units.T
        cosines = products / asked.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return Scores((products * norms).double().numpy(), cosines.double().numpy())

    def _training(self, basis: Basis) -> Tensor:
        """Sketched vectors of the examples; those of the last damping are kept."""
        if self._sketched is None or self._sketched[0] != basis.damping:
            self._sketched = (basis.damping, basis.sketched(self._captured.training))
        return self._sketched[1]

    def _fitted_joint(self, basis: Basis) -> LowRankWhitening:
        if self._joint is None or self._joint[0] != basis.damping:
            fitted = LowRankWhitening.fit(self._training(basis), damping=1.0)
            self._joint = (basis.damping, fitted)
        return self._joint[1]
