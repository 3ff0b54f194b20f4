"""Methods that know how training went, on gradients of every weight: SOURCE, TracIn, unrolling.

All see the same checkpoints and the same gradients, taken by the indexer's hooks. Curvature is that
of the examples' own gradients (empirical Fisher), as in an index. Scores are ``[Q, N]``, positive
for proponents.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from evaluation.digits import Classifier, DigitsBatch
from evaluation.staged_digits import Course, StagedDigits
from evaluation.subject import Subject
from evaluation.unrolling import Descent, unrolled_scores
from indexer.segments import Segment
from influence.layers import LinearLayer
from influence.task import run_backward
from influence.unrolled import segment_weights, with_weight_decay

Bases = list[tuple[Tensor, Tensor]]  # of each layer, eigenvectors as rows: inputs, outputs


class Followed:
    """One training of the digits task, and everything about it that methods need."""

    def __init__(self, task: StagedDigits, course: Course) -> None:
        self.task = task
        self.course = course
        s = task.settings
        self._examples = _pairs(task.train)
        self._queries = _pairs(task.queries)
        self.subjects = []
        for _, parameters in course.checkpoints:
            module = task.module()
            module.load_state_dict(parameters)
            self.subjects.append(Subject(Classifier(module), self._examples, self._queries))
        self.layers: list[LinearLayer] = [x.layer for x in self.subjects[-1].whole.layers]
        each = len(course.checkpoints) // task.regime.segments
        steps = [0, *(step for step, _ in course.checkpoints)]
        self.segments = [
            Segment(steps[c] + 1, steps[c + each], f"{c}", tuple(range(c, c + each)))
            for c in range(0, len(course.checkpoints), each)
        ]
        stages = len(task.regime.epochs)
        self.exposures = torch.stack(
            [
                torch.from_numpy(stages * (task.stage_of == number * stages // len(self.segments)))
                for number in range(len(self.segments))
            ]
        ).double()  # [L, N]
        rates = torch.tensor([step.learning_rate for step in course.steps], dtype=torch.float64)
        self.rates = rates / (1 - s.momentum)

    @cached_property
    def gradients(self) -> list[Tensor]:
        """Of the examples at each checkpoint, ``[N, k]``."""
        return [subject.training.gradients for subject in self.subjects]

    @cached_property
    def queries(self) -> list[Tensor]:
        """Of the measurements at each checkpoint, ``[Q, k]``."""
        return [s.gradients(self._queries, measured=True) for s in self.subjects]

    @cached_property
    def lengths(self) -> Tensor:
        """Sums of learning rates of the segments, ``[L]``."""
        return torch.stack([self.rates[s.first - 1 : s.last].sum() for s in self.segments])

    def covariances(self, checkpoint: int, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """``E[a aᵀ]`` and ``E[g gᵀ]`` of each layer over weighted examples."""
        receiver = _Covariances(weights.float())
        subject = self.subjects[checkpoint]
        batch = subject.task.batch(self._examples)
        leaders = {layer.name: layer.name for layer in self.layers}
        run_backward(subject.task, batch, self.layers, leaders, receiver)
        return [receiver.found[layer.name] for layer in self.layers]

    def basis(self, checkpoints: Sequence[int], weights: Tensor) -> Bases:
        """Eigenvectors of the mean covariances of checkpoints."""
        rows = [self.covariances(number, weights) for number in checkpoints]
        return [
            (_eigenvectors([a for a, _ in layer]), _eigenvectors([b for _, b in layer]))
            for layer in zip(*rows, strict=True)
        ]

    def turned(self, gradients: Tensor, basis: Bases, *, back: bool = False) -> Tensor:
        """Gradients ``[n, k]`` in a basis, or out of it again."""
        parts = []
        widths = [layer.parameters for layer in self.layers]
        for layer, part, (a, b) in zip(
            self.layers, gradients.split(widths, dim=1), basis, strict=True
        ):
            weight = part.view(-1, layer.d_out, layer.d_in)
            turned = b.T @ weight @ a if back else b @ weight @ a.T
            parts.append(turned.flatten(1))
        return torch.cat(parts, dim=1)

    def curvature(self, segment: int, basis: Bases) -> Tensor:
        """Mean squares over what the segment saw at its checkpoints, weight decay included."""
        weight = self.exposures[segment] / self.exposures[segment].sum()
        found = [
            weight @ self.turned(self.gradients[c], basis).double().square()
            for c in self.segments[segment].checkpoints
        ]
        return with_weight_decay(torch.stack(found).mean(0), self.task.settings.weight_decay)

    def mean_gradients(self, segment: int) -> Tensor:
        """Over the segment's checkpoints, times how often it saw each example, ``[N, k]``."""
        own = [self.gradients[c] for c in self.segments[segment].checkpoints]
        return torch.stack(own).mean(0) * self.exposures[segment].float()[:, None]


def _eigenvectors(covariances: Sequence[Tensor]) -> Tensor:
    return torch.linalg.eigh(torch.stack(list(covariances)).double().mean(0))[1].T.float()


def _pairs(batch: DigitsBatch) -> list[tuple[Tensor, int]]:
    return list(zip(batch.images, batch.labels.tolist(), strict=True))


class _Covariances:
    """Collects them as captured tensors come by."""

    def __init__(self, weights: Tensor) -> None:
        self.found: dict[str, tuple[Tensor, Tensor]] = {}
        self._weights = weights / weights.sum()  # [N]

    def on_input(self, layer: str, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        return rows.T @ (rows * self._weights[:, None])

    def on_gradient(self, layer: str, seen: Tensor, g: Tensor) -> None:
        rows = g.flatten(0, 1)
        self.found[layer] = (seen, rows.T @ (rows * self._weights[:, None]))


def source(followed: Followed) -> Tensor:
    """SOURCE in the eigenbasis of the last checkpoint: what an index stores."""
    everything = torch.ones(followed.exposures.shape[1])
    basis = followed.basis([len(followed.subjects) - 1], everything)
    sigma = torch.stack([followed.curvature(n, basis) for n in range(len(followed.segments))])
    weights = segment_weights(sigma, followed.lengths[:, None])
    query = followed.turned(followed.queries[-1], basis).double()
    terms = [
        (query * weight) @ followed.turned(followed.mean_gradients(n), basis).double().T
        for n, weight in enumerate(weights)
    ]
    return torch.stack(terms).sum(0)


def source_of_segments(followed: Followed) -> Tensor:
    """SOURCE as in its paper: every segment in an eigenbasis of its own."""
    query, total = followed.queries[-1].double(), torch.zeros(())
    for n in reversed(range(len(followed.segments))):
        basis = followed.basis(followed.segments[n].checkpoints, followed.exposures[n])
        basis = [(a.double(), b.double()) for a, b in basis]
        single = [(a.float(), b.float()) for a, b in basis]
        sigma, length = followed.curvature(n, single), followed.lengths[n : n + 1, None]
        turned = followed.turned(query, basis)
        weight = segment_weights(sigma[None], length)[0]
        gradients = followed.turned(followed.mean_gradients(n).double(), basis)
        total = total + (turned * weight) @ gradients.T
        query = followed.turned(turned * torch.exp(-length * sigma), basis, back=True)
    return total


def influence(followed: Followed, damping: float) -> Tensor:
    """EK-FAC influence of the trained model; ``damping`` is a fraction of the mean eigenvalue."""
    last, everything = len(followed.subjects) - 1, torch.ones(followed.exposures.shape[1])
    basis = followed.basis([last], everything)
    train = followed.turned(followed.gradients[last], basis).double()
    query = followed.turned(followed.queries[last], basis).double()
    sigma, damped = train.square().mean(0), []
    for part in sigma.split([layer.parameters for layer in followed.layers]):
        damped.append(part + damping * part.mean())
    return (query / torch.cat(damped)) @ train.T


def dot_product(followed: Followed) -> Tensor:
    """Gradient dot product of the trained model."""
    return followed.queries[-1] @ followed.gradients[-1].T


def tracin(followed: Followed) -> Tensor:
    """Dot products at every checkpoint, times the learning rates that led to it (2002.08484)."""
    total, before = torch.zeros(()), 0
    for n, segment in enumerate(followed.segments):
        for c in segment.checkpoints:
            step = followed.course.checkpoints[c][0]
            seen = followed.gradients[c] * followed.exposures[n].float()[:, None]
            total = total + followed.rates[before:step].sum() * (followed.queries[c] @ seen.T)
            before = step
    return total


def unrolled(followed: Followed, chosen: np.ndarray) -> Tensor:
    """Exact unrolled differentiation of this very run, for the chosen queries, ``[·, N]``."""
    task, s = followed.task, followed.task.settings
    module, shapes = task.module(), {n: p.shape for n, p in followed.course.initial.items()}
    sizes = [shape.numel() for shape in shapes.values()]

    def shaped(flat: Tensor) -> dict[str, Tensor]:
        parts = flat.split(sizes)
        return {n: p.view(shape) for (n, shape), p in zip(shapes.items(), parts, strict=True)}

    def loss(flat: Tensor, examples: Tensor, weights: Tensor) -> Tensor:
        logits = functional_call(module, shaped(flat), (task.train.images[examples],))
        losses = cross_entropy(logits, task.train.labels[examples], reduction="none")
        return (weights * losses).mean()

    descent = Descent(loss, momentum=s.momentum, weight_decay=s.weight_decay)
    start = torch.cat([followed.course.initial[n].flatten() for n in shapes])
    states = descent.run(start, followed.course.steps)
    queries = _measured(followed, chosen)
    return unrolled_scores(descent, states, followed.course.steps, queries, examples=s.examples)


def _measured(followed: Followed, chosen: np.ndarray) -> Tensor:
    """Gradients of the chosen measurements in all parameters, biases too, ``[·, k]``."""
    classifier = followed.subjects[-1].task
    assert isinstance(classifier, Classifier)
    queries, rows = followed.task.queries, []
    parameters = list(classifier.model.parameters())
    for number in np.flatnonzero(chosen):
        one = DigitsBatch(queries.images[number, None], queries.labels[number, None])
        found = torch.autograd.grad(classifier.measurements(one).sum(), parameters)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)
