"""The digits task trained in stages by SGD, with its course on record.

In a second stage the images are negatives, so that the network learns them afresh and forgets some
of what it knew of the others.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, jacrev
from torch.nn.functional import cross_entropy

from evaluation.digits import (
    Classifier,
    DigitsBatch,
    DigitsSettings,
    DigitsTask,
    Parameters,
    margins,
)
from evaluation.staged import Checkpoint, Course, Regime
from evaluation.subject import Subject
from evaluation.unrolling import Descent, Flat, Step, run, unrolled_scores
from influence.task import Task

STAGED_PROTOCOL = 1


REGIMES = (
    Regime("converged", (20,)),
    Regime("under-trained", (2,)),
    Regime("two stages", (10, 10), segments=2),
)


class StagedDigits(DigitsTask):
    """`DigitsTask` whose training follows a regime."""

    def __init__(self, settings: DigitsSettings, regime: Regime, *, cache: Path) -> None:
        super().__init__(settings, cache=cache)
        self.regime = regime

    @property
    def stage_of(self) -> np.ndarray:
        """The stage of each example, ``[N]``."""
        stages = len(self.regime.epochs)
        return np.arange(self.settings.examples) * stages // self.settings.examples

    @cached_property
    def train(self) -> DigitsBatch:
        """The examples; those of the second stage are negatives."""
        return self._staged(super().train, self.stage_of)

    @cached_property
    def queries(self) -> DigitsBatch:
        """Half of them of each stage, in turn."""
        return self._staged(super().queries, self.query_stages)

    @property
    def query_stages(self) -> np.ndarray:
        """In turn, ``[Q]``."""
        return np.arange(self.settings.queries) % len(self.regime.epochs)

    def _staged(self, plain: DigitsBatch, stages: np.ndarray) -> DigitsBatch:
        sign = torch.from_numpy(1.0 - 2.0 * (stages % 2)).float()
        return replace(plain, images=plain.images * sign[:, None])

    @property
    def protocol(self) -> str:
        """For people."""
        s, epochs = self.settings, " and ".join(map(str, self.regime.epochs))
        return (
            f"MLP {'-'.join(map(str, (64, *s.hidden, 10)))}, {epochs} epochs of {s.examples} "
            f"digits, {s.noise:.0%} of them with a wrong label"
        )

    @property
    def step_length(self) -> float:
        """``1 / (1 - β)``: what momentum makes of a learning rate in the end."""
        return 1 / (1 - self.settings.momentum)

    @property
    def weight_decay(self) -> float:
        """Of SGD: added to the gradient."""
        return self.settings.weight_decay

    def courses(self, seeds: Sequence[int]) -> list[Course]:
        """Trainings on all examples, one for each seed."""
        everything = np.ones((len(seeds), self.settings.examples), dtype=bool)
        initial = self._initial(seeds)
        kept: list[tuple[int, Parameters]] = []
        batches: list[Tensor] = []
        rates: list[float] = []
        marks = self.regime.marks(self._total_steps(everything))
        for step, parameters, chosen, rate in self._run(everything, seeds):
            batches.append(chosen)
            rates.append(rate)
            if step in marks:
                kept.append((step, {n: p.detach().clone() for n, p in parameters.items()}))
        return [
            Course(
                tuple(Checkpoint(step, {n: p[i] for n, p in v.items()}) for step, v in kept),
                {n: p[i] for n, p in initial.items()},
                tuple(Step(b[i], rate) for b, rate in zip(batches, rates, strict=True)),
            )
            for i in range(len(seeds))
        ]

    def subject(self, checkpoint: Checkpoint) -> Subject:
        """A network of a course, with the examples and the queries."""
        module = self.module()
        module.load_state_dict(checkpoint.parameters)
        return Subject(Classifier(module), _pairs(self.train), _pairs(self.queries))

    def curvature_loss(self, subject: Subject) -> Task:
        """Its own: the digits' labels, a tenth of them wrong, are never fitted quite."""
        return subject.task

    def unrolled(self, course: Course, chosen: np.ndarray) -> Tensor:
        """Exact unrolled differentiation of a run for chosen queries, ``[·, N]``."""
        s, module, flat = self.settings, self.module(), Flat.of(course.initial)

        def loss(vector: Tensor, examples: Tensor, weights: Tensor) -> Tensor:
            logits = functional_call(module, flat.parts(vector), (self.train.images[examples],))
            losses = cross_entropy(logits, self.train.labels[examples], reduction="none")
            return (weights * losses).mean()

        def measured(vector: Tensor) -> Tensor:
            logits = functional_call(module, flat.parts(vector), (self.queries.images[chosen],))
            return -margins(logits, self.queries.labels[chosen])

        descent = Descent(loss, momentum=s.momentum, weight_decay=s.weight_decay)
        states = run(descent, flat.vector(course.initial), course.steps)
        queries = jacrev(measured)(states[-1][0])
        return unrolled_scores(descent, states, course.steps, queries, examples=s.examples)

    def _train(self, subsets: np.ndarray, seeds: Sequence[int]) -> Parameters:
        (last,) = deque(self._run(subsets, seeds), maxlen=1)
        return {name: values.detach() for name, values in last[1].items()}

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
        own = {"staged": STAGED_PROTOCOL, "regime": asdict(self.regime)}
        return {**super()._inputs(subsets, seeds), **own}

    def described(self, subsets: np.ndarray, seed: int) -> dict[str, Any]:
        """Everything that decides the scores of one training and what they are judged by."""
        return {**self._inputs(subsets, [seed]), "checkpoints": self.regime.checkpoints}

    def _total_steps(self, subsets: np.ndarray) -> int:
        return sum(
            epochs * (int(subsets[0][self.stage_of == stage].sum()) // self.settings.batch)
            for stage, epochs in enumerate(self.regime.epochs)
        )

    def _run(
        self, subsets: np.ndarray, seeds: Sequence[int]
    ) -> Iterator[tuple[int, Parameters, Tensor, float]]:
        """Train; after each step its number, the parameters, the batch ``[S, B]`` and the rate."""
        s = self.settings
        parameters = {n: p.requires_grad_() for n, p in self._initial(seeds).items()}
        optimizer = torch.optim.SGD(
            parameters.values(),
            lr=s.learning_rate,
            momentum=s.momentum,
            weight_decay=s.weight_decay,
            fused=True,
        )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        module, total, done = self.module(), self._total_steps(subsets), 0
        for stage, epochs in enumerate(self.regime.epochs):
            members = torch.from_numpy(
                np.stack([(row & (self.stage_of == stage)).nonzero()[0] for row in subsets])
            )  # [S, n]
            size = members.shape[1]
            for _ in range(epochs):
                order = torch.stack(
                    [
                        row[torch.randperm(size, generator=generator)]
                        for row, generator in zip(members, generators, strict=True)
                    ]
                )
                for start in range(0, size // s.batch * s.batch, s.batch):
                    chosen = order[:, start : start + s.batch]
                    rate = s.learning_rate * (1 - done / total)
                    optimizer.param_groups[0]["lr"] = rate
                    logits = self._logits(module, parameters, self.train.images[chosen])
                    losses = cross_entropy(
                        logits.flatten(0, 1), self.train.labels[chosen].flatten(), reduction="sum"
                    )
                    (losses / s.batch).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    done += 1
                    yield done, parameters, chosen, rate


def _pairs(batch: DigitsBatch) -> list[tuple[Tensor, int]]:
    return list(zip(batch.images, batch.labels.tolist(), strict=True))
