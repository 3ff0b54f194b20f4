"""Methods that know how training went, on gradients of every weight: SOURCE and TracIn.

All see the same checkpoints and the same gradients, taken by the indexer's hooks. Where training
took the steps of Adam, gradients of a checkpoint move weights by ``P g`` with the preconditioner
``P = 1 / (√v + ε)``. Scores are ``[Q, N]``, positive for proponents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from evaluation.staged import Course, StagedTask
from evaluation.subject import Subject
from indexer.segments import Segment
from influence.layers import LinearLayer
from influence.task import real_rows, run_backward
from influence.unrolled import diagonal_in_basis, segment_weights, with_weight_decay

Bases = list[tuple[Tensor, Tensor]]  # of each layer, eigenvectors as rows: inputs, outputs
ADAM_EPSILON = 1e-8  # of torch


@dataclass(frozen=True)
class Coordinates:
    """Where curvature is taken to be diagonal.

    Attributes:
        basis: Of each layer.
        scale: ``S [k]``: gradients are multiplied by it before they are turned, as if the weights
            were measured in units of it; None leaves them.
    """

    basis: Bases
    scale: Tensor | None = None


class Followed:
    """One training, and everything about it that methods need."""

    def __init__(self, task: StagedTask, course: Course) -> None:
        self.task = task
        self.course = course
        self.subjects: list[Subject] = [task.subject(found) for found in course.checkpoints]
        self.layers: list[LinearLayer] = [x.layer for x in self.subjects[-1].whole.layers]
        self.examples = len(task.stage_of)
        each = len(course.checkpoints) // task.regime.segments
        steps = [0, *(checkpoint.step for checkpoint in course.checkpoints)]
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
        self.rates = rates * task.step_length

    @cached_property
    def gradients(self) -> list[Tensor]:
        """Of the examples at each checkpoint, ``[N, k]``."""
        return [subject.training.gradients for subject in self.subjects]

    @cached_property
    def curvature_rows(self) -> list[Tensor]:
        """Gradients at each checkpoint whose squares are the curvature, ``[N, k]``."""
        found = []
        for subject, gradients in zip(self.subjects, self.gradients, strict=True):
            loss = self.task.curvature_loss(subject)
            own = loss is subject.task
            found.append(gradients if own else subject.gradients(subject.examples, task=loss))
        return found

    @cached_property
    def queries(self) -> list[Tensor]:
        """Of the measurements at each checkpoint, ``[Q, k]``."""
        return [s.gradients(s.queries, measured=True) for s in self.subjects]

    @cached_property
    def preconditioners(self) -> list[Tensor] | None:
        """``1 / (√v + ε)`` at each checkpoint, ``[k]``; None under SGD."""
        if not self.course.checkpoints[-1].second_moments:
            return None
        return [
            torch.cat(
                [
                    1
                    / (
                        checkpoint.second_moments[f"{x.name}.weight"].sqrt() + ADAM_EPSILON
                    ).flatten()
                    for x in self.layers
                ]
            )
            for checkpoint in self.course.checkpoints
        ]

    @cached_property
    def lengths(self) -> Tensor:
        """Sums of learning rates of the segments, ``[L]``."""
        return torch.stack([self.rates[s.first - 1 : s.last].sum() for s in self.segments])

    def covariances(self, checkpoint: int, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """``E[a aᵀ]`` and ``E[g gᵀ]`` of each layer over weighted examples."""
        subject = self.subjects[checkpoint]
        loss = self.task.curvature_loss(subject)
        batch = loss.batch(subject.examples)
        receiver = _Covariances(weights.float(), batch.masks)
        leaders = {layer.name: layer.name for layer in self.layers}
        run_backward(loss, batch, self.layers, leaders, receiver)
        return [receiver.found[layer.name] for layer in self.layers]

    def basis(self, checkpoints: Sequence[int], weights: Tensor) -> Bases:
        """Eigenvectors of the mean covariances of checkpoints."""
        rows = [self.covariances(number, weights) for number in checkpoints]
        return [
            (_eigenvectors([a for a, _ in layer]), _eigenvectors([b for _, b in layer]))
            for layer in zip(*rows, strict=True)
        ]

    @cached_property
    def last(self) -> Coordinates:
        """The eigenbasis of the last checkpoint: what an index has."""
        return Coordinates(self.basis([len(self.subjects) - 1], torch.ones(self.examples)))

    @cached_property
    def adams(self) -> Coordinates:
        """Those in which the last checkpoint's preconditioner is the identity.

        With ``θ = P^½ u`` a step ``-η P ∂L/∂θ`` of Adam is ``-η ∂L/∂u``, plain descent, along
        gradients ``P^½ g``. Their eigenbasis is made from the scaled gradients themselves.
        """
        assert self.preconditioners is not None
        scale = self.preconditioners[-1].sqrt()
        basis = []
        for layer, part in zip(
            self.layers, self._parts(self.curvature_rows[-1] * scale), strict=True
        ):
            rows = part.view(-1, layer.d_out, layer.d_in).double()
            inputs, outputs = rows.flatten(0, 1), rows.transpose(1, 2).flatten(0, 1)
            basis.append((_eigenvectors([inputs.T @ inputs]), _eigenvectors([outputs.T @ outputs])))
        return Coordinates(basis, scale)

    def turned(self, gradients: Tensor, chosen: Coordinates, *, back: bool = False) -> Tensor:
        """Gradients ``[n, k]`` in coordinates; ``back`` takes them out of a basis again."""
        if chosen.scale is not None:
            gradients = gradients * chosen.scale
        parts = []
        for layer, part, (a, b) in zip(
            self.layers, self._parts(gradients), chosen.basis, strict=True
        ):
            weight = part.view(-1, layer.d_out, layer.d_in)
            a, b = a.to(weight.dtype), b.to(weight.dtype)
            turned = b.T @ weight @ a if back else b @ weight @ a.T
            parts.append(turned.flatten(1))
        return torch.cat(parts, dim=1)

    def _parts(self, flat: Tensor) -> Sequence[Tensor]:
        return flat.split([layer.parameters for layer in self.layers], dim=-1)

    def segment(self, number: int, chosen: Coordinates) -> tuple[Tensor, Tensor]:
        """Curvature and length of a segment, ``[k]`` each, weight decay and Adam included."""
        weight = self.exposures[number] / self.exposures[number].sum()
        own = self.segments[number].checkpoints
        found = [
            weight @ self.turned(self.curvature_rows[c], chosen).double().square() for c in own
        ]
        sigma, length = torch.stack(found).mean(0), self.lengths[number]
        steps = None
        if self.preconditioners is not None:
            mean = torch.stack([self.preconditioners[c] for c in own]).mean(0)
            steps = self._diagonal(mean, chosen)
        sigma = with_weight_decay(sigma, self.task.weight_decay, steps)
        return sigma, length.expand_as(sigma) if steps is None else length * steps

    def _diagonal(self, diagonal: Tensor, chosen: Coordinates) -> Tensor:
        """Of a diagonal over weights ``[k]``, in coordinates."""
        if chosen.scale is not None:
            diagonal = diagonal / chosen.scale.square()
        parts = [
            diagonal_in_basis(part.view(layer.d_out, layer.d_in), a, b).flatten()
            for layer, part, (a, b) in zip(
                self.layers, self._parts(diagonal), chosen.basis, strict=True
            )
        ]
        return torch.cat(parts)

    def mean_gradients(self, segment: int) -> Tensor:
        """Over the segment's checkpoints, times how often it saw each example, ``[N, k]``."""
        own = [self.gradients[c] for c in self.segments[segment].checkpoints]
        return torch.stack(own).mean(0) * self.exposures[segment].float()[:, None]


def _eigenvectors(covariances: Sequence[Tensor]) -> Tensor:
    return torch.linalg.eigh(torch.stack(list(covariances)).double().mean(0))[1].T.float()


class _Covariances:
    """Collects them as captured tensors come by; padding is left out."""

    def __init__(self, weights: Tensor, masks: Sequence[Tensor]) -> None:
        self.found: dict[str, tuple[Tensor, Tensor]] = {}
        self._roots = (weights / weights.sum()).sqrt()[:, None, None]  # [N, 1, 1]
        self._masks = masks

    def on_input(self, layer: str, x: Tensor) -> Tensor:
        rows = real_rows(x * self._roots, self._masks)
        return rows.T @ rows

    def on_gradient(self, layer: str, seen: Tensor, g: Tensor) -> None:
        rows = real_rows(g * self._roots, self._masks)
        self.found[layer] = (seen, rows.T @ rows)


def source(followed: Followed, chosen: Coordinates | None = None) -> Tensor:
    """SOURCE in one eigenbasis, that of the last checkpoint unless told: what an index stores."""
    chosen = chosen or followed.last
    terms = [followed.segment(n, chosen) for n in range(len(followed.segments))]
    weights = segment_weights(
        torch.stack([sigma for sigma, _ in terms]), torch.stack([length for _, length in terms])
    )
    query = followed.turned(followed.queries[-1], chosen).double()
    total = torch.zeros(())
    for n, weight in enumerate(weights):
        gradients = followed.turned(followed.mean_gradients(n), chosen).double()
        total = total + (query * weight) @ gradients.T
    return total


def source_of_segments(followed: Followed) -> Tensor:
    """SOURCE as in its paper: every segment in an eigenbasis of its own."""
    query, total = followed.queries[-1].double(), torch.zeros(())
    for n in reversed(range(len(followed.segments))):
        own = Coordinates(followed.basis(followed.segments[n].checkpoints, followed.exposures[n]))
        sigma, length = followed.segment(n, own)
        turned = followed.turned(query, own)
        weight = segment_weights(sigma[None], length[None])[0]
        gradients = followed.turned(followed.mean_gradients(n).double(), own)
        total = total + (turned * weight) @ gradients.T
        query = followed.turned(turned * torch.exp(-length * sigma), own, back=True)
    return total


def source_of_whole_curvature(followed: Followed) -> Tensor:
    """SOURCE with each segment's curvature whole, ``RᵀR / N`` over rows, instead of a diagonal.

    In Adam's own coordinates where there are any, with one length for all weights of a segment: the
    mean of what its preconditioner has grown to. Costs a decomposition of ``N × N`` for each
    segment, and matrices of full gradients: a reference for small models.
    """
    last = followed.preconditioners[-1] if followed.preconditioners is not None else None
    scale = torch.ones(()) if last is None else last.sqrt()
    query, total = (followed.queries[-1] * scale).double(), torch.zeros(())
    for n in reversed(range(len(followed.segments))):
        own, length = followed.segments[n].checkpoints, followed.lengths[n]
        if followed.preconditioners is not None and last is not None:
            mean = torch.stack([followed.preconditioners[c] for c in own]).mean(0)
            length = length * float((mean / last).mean())
        weight = (followed.exposures[n] / followed.exposures[n].sum() / len(own)).sqrt()[:, None]
        rows = torch.cat([(followed.curvature_rows[c] * scale).double() * weight for c in own])
        values, vectors = torch.linalg.eigh(rows @ rows.T)
        kept = values > values[-1] * 1e-10
        directions = (vectors[:, kept] / values[kept].sqrt()).T @ rows  # orthonormal, [m, k]
        inside = query @ directions.T
        # Beyond the rows there is the curvature of weight decay alone.
        sigma = torch.cat([values[kept] + followed.task.weight_decay,
                           torch.tensor([followed.task.weight_decay]).double()])  # fmt: skip
        grown = segment_weights(sigma[None], length.expand(1, len(sigma)))[0]
        left = torch.exp(-length * sigma)
        gradients = (followed.mean_gradients(n) * scale).double()
        moved = query * grown[-1] + (inside * (grown[:-1] - grown[-1])) @ directions
        total = total + moved @ gradients.T
        query = query * left[-1] + (inside * (left[:-1] - left[-1])) @ directions
    return total


def influence(followed: Followed, damping: float, chosen: Coordinates | None = None) -> Tensor:
    """EK-FAC influence of the trained model; ``damping`` is a fraction of the mean eigenvalue."""
    chosen = chosen or followed.last
    train = followed.turned(followed.gradients[-1], chosen).double()
    query = followed.turned(followed.queries[-1], chosen).double()
    sigma = followed.turned(followed.curvature_rows[-1], chosen).double().square().mean(0)
    damped = []
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
            step = followed.course.checkpoints[c].step
            seen = followed.gradients[c] * followed.exposures[n].float()[:, None]
            total = total + followed.rates[before:step].sum() * (followed.queries[c] @ seen.T)
            before = step
    return total
