"""The digits task trained in stages, with its course on record: checkpoints, batches, rates.

What SOURCE is for: training that ended early, and training whose later stage saw other data than
the first. In a second stage the images are negatives, so that the network learns them afresh and
forgets some of what it knew of the others.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from evaluation.digits import DigitsBatch, DigitsSettings, DigitsTask, Parameters
from evaluation.unrolling import Step

STAGED_PROTOCOL = 1


@dataclass(frozen=True)
class Regime:
    """How the network is trained.

    Attributes:
        name: For people.
        epochs: Of each stage; each has the same share of the examples.
        segments: That SOURCE cuts training into, each of as many steps.
        checkpoints: Kept in all, at equal distances; the last is the trained model.
    """

    name: str
    epochs: tuple[int, ...]
    segments: int = 3
    checkpoints: int = 6


REGIMES = (
    Regime("converged", (20,)),
    Regime("under-trained", (2,)),
    Regime("two stages", (10, 10), segments=2),
)


@dataclass(frozen=True)
class Course:
    """One training on everything.

    Attributes:
        checkpoints: ``(step, parameters by name)``, the last one trained.
        initial: Parameters before the first step.
        steps: Examples and learning rate of each.
    """

    checkpoints: tuple[tuple[int, dict[str, Tensor]], ...]
    initial: dict[str, Tensor]
    steps: tuple[Step, ...]


class StagedDigits(DigitsTask):
    """`DigitsTask` whose training follows a regime."""

    def __init__(self, settings: DigitsSettings, regime: Regime, *, cache: Path) -> None:
        super().__init__(settings, cache=cache)
        self.regime = regime

    @cached_property
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
        plain = super().queries
        return self._staged(plain, np.arange(plain.size) % len(self.regime.epochs))

    def _staged(self, plain: DigitsBatch, stages: np.ndarray) -> DigitsBatch:
        sign = torch.from_numpy(1.0 - 2.0 * (stages % 2)).float()
        return replace(plain, images=plain.images * sign[:, None])

    def subsets(self, count: int, *, seed: int) -> np.ndarray:
        """Random halves of every stage, ``[S, N]`` bool."""
        draw = np.random.default_rng(seed)
        chosen = np.zeros((count, self.settings.examples), dtype=bool)
        for stage in range(len(self.regime.epochs)):
            own = np.flatnonzero(self.stage_of == stage)
            for row in chosen:
                row[draw.permutation(own)[: len(own) // 2]] = True
        return chosen

    def courses(self, seeds: Sequence[int]) -> list[Course]:
        """Trainings on all examples, one for each seed."""
        everything = np.ones((len(seeds), self.settings.examples), dtype=bool)
        initial = self._initial(seeds)
        kept: list[tuple[int, Parameters]] = []
        batches: list[Tensor] = []
        rates: list[float] = []
        total = self._total_steps(everything)
        marks = {round(total * (c + 1) / self.regime.checkpoints) for c in range(
            self.regime.checkpoints
        )}  # fmt: skip
        for step, parameters, chosen, rate in self._run(everything, seeds):
            batches.append(chosen)
            rates.append(rate)
            if step in marks:
                kept.append((step, {n: p.detach().clone() for n, p in parameters.items()}))
        return [
            Course(
                tuple((step, {n: p[i] for n, p in values.items()}) for step, values in kept),
                {n: p[i] for n, p in initial.items()},
                tuple(Step(b[i], rate) for b, rate in zip(batches, rates, strict=True)),
            )
            for i in range(len(seeds))
        ]

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
