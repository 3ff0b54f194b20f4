"""Training cut into segments, and how much each segment saw of each document.

SOURCE takes gradients and curvature of a segment as constant (`influence.unrolled`), so cuts belong
where they change: between stages that the record names, or where the checkpoints' curvature says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from indexer.training_record import SeenDocuments, TrainingRecord
from influence.errors import InvalidInput


@dataclass(frozen=True)
class Span:
    """Steps ``first … last``, both included; the first step of training is 1."""

    first: int
    last: int

    @property
    def steps(self) -> int:
        """How many."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Segment(Span):
    """A stretch of training and the numbers of its checkpoints."""

    name: str
    checkpoints: tuple[int, ...]


def segments_of_stages(record: TrainingRecord) -> list[Segment]:
    """A segment for each stage of the record.

    Raises:
        InvalidInput: The record has no stages, or one without a checkpoint.
    """
    if not record.stages:
        raise InvalidInput(
            "The record names no stages, so training cannot be cut at them. Add stages to it, or "
            "give the number of segments (--segments 3)."
        )
    segments, before = [], 0
    for stage in record.stages:
        own = tuple(
            number
            for number, checkpoint in enumerate(record.checkpoints)
            if before < max(checkpoint.step, 1) <= stage.last_step
        )
        if not own:
            raise InvalidInput(
                f"The stage {stage.name} has no checkpoint in its steps {before + 1} to "
                f"{stage.last_step}. Keep one of every stage, or join it with its neighbour."
            )
        segments.append(Segment(before + 1, stage.last_step, stage.name, own))
        before = stage.last_step
    return segments


def segments_by_curvature(record: TrainingRecord, curvature: Tensor, count: int) -> list[Segment]:
    """``count`` runs of checkpoints, each with as little change of curvature in it as can be.

    Args:
        record: Of the training.
        curvature: Of every checkpoint, ``[C, m]``, such as the traces of the layers.
        count: Segments.

    Raises:
        InvalidInput: There are fewer checkpoints, or as many of them after step 0.
    """
    own = [number for number, c in enumerate(record.checkpoints) if c.step > 0]
    if count > len(own):
        raise InvalidInput(
            f"{count} segments were asked for, and the training has {len(own)} checkpoints. Keep "
            "more checkpoints, or ask for fewer segments."
        )
    height = curvature.double()
    logs = (height + 1e-12 * height.max().clamp(min=1e-300)).log()[own]
    ends = [*_cuts(logs, count), len(own)]
    segments, begin, before = [], 0, 0
    for number, end in enumerate(ends, start=1):
        chosen = list(own[begin:end])
        last = record.checkpoints[chosen[-1]].step
        if begin == 0:
            chosen = [*(set(range(len(record.checkpoints))) - set(own)), *chosen]
        segments.append(Segment(before + 1, last, f"segment {number}", tuple(chosen)))
        begin, before = end, last
    return segments


def _cuts(rows: Tensor, count: int) -> list[int]:
    """Where to cut ``rows [C, m]`` into runs of the least sum of squares around their means."""
    size = len(rows)

    def spread(i: int, j: int) -> float:
        return float((rows[i:j] - rows[i:j].mean(0)).square().sum())

    best = {(0, 0): (0.0, 0)}
    for runs in range(1, count + 1):
        for end in range(runs, size + 1):
            best[runs, end] = min(
                (best[runs - 1, begin][0] + spread(begin, end), begin)
                for begin in range(runs - 1, end)
                if (runs - 1, begin) in best
            )
    cuts, end = [], size
    for runs in range(count, 1, -1):
        end = best[runs, end][1]
        cuts.append(end)
    return cuts[::-1]


class Exposures:
    """How much each stretch of training saw of each document, 1 where all are seen alike.

    A document's weight in the mean loss of a step is its share of the batch; an exposure is the
    mean of that over the steps, times the number of documents of the corpus.
    """

    def __init__(self, rows: dict[str, int], table: np.ndarray) -> None:
        self._rows = rows
        self._table = table  # [documents, spans]; without rows, one for all

    @classmethod
    def even(cls, spans: Sequence[Span]) -> "Exposures":
        """Every span saw every document alike."""
        return cls({}, np.ones((1, len(spans))))

    @classmethod
    def recorded(
        cls, spans: Sequence[Span], seen: Iterable[SeenDocuments], documents: Sequence[str]
    ) -> "Exposures":
        """By a data order.

        Raises:
            InvalidInput: It never mentions a document of the corpus.
        """
        rows = {name: row for row, name in enumerate(documents)}
        table = np.zeros((len(documents), len(spans)))
        for line in seen:
            known = [rows[name] for name in line.documents if name in rows]
            for column, span in enumerate(spans):
                overlap = min(line.last, span.last) - max(line.first, span.first) + 1
                if overlap > 0 and known:
                    share = overlap / span.steps / len(line.documents) * len(documents)
                    np.add.at(table[:, column], known, share)
        if unseen := [documents[row] for row in np.flatnonzero(table.sum(axis=1) == 0).tolist()]:
            raise InvalidInput(
                f"{len(unseen)} of {len(documents)} documents of the corpus have no recorded step, "
                f"such as {', '.join(unseen[:3])}. Take them out of the corpus, or record the "
                "steps that saw them."
            )
        return cls(rows, table)

    def of(self, documents: Sequence[str]) -> np.ndarray:
        """Of documents, ``[n, spans]``."""
        return self._table[[self._rows[name] if self._rows else 0 for name in documents]]


def mean_over(segments: Sequence[Segment], of_checkpoints: Tensor) -> Tensor:
    """Means over the checkpoints of each segment: ``[C, ...]`` -> ``[L, ...]``."""
    return torch.stack([of_checkpoints[list(s.checkpoints)].mean(0) for s in segments])
