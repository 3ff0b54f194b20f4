"""The restated facts trained in stages by AdamW, with its course on record.

In a second stage the documents are about other people, so that the model learns their facts and
forgets some of what it knew of the first.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from evaluation.language import BETAS, LanguageSettings, Padded
from evaluation.restated import STATEMENTS, RestatedTask
from evaluation.stacked_llama import Parameters, sequence_losses
from evaluation.staged import Checkpoint, Course, Regime
from evaluation.subject import Subject
from evaluation.unrolling import AdamDescent, Flat, Step, run, unrolled_scores
from indexer.progress import Advance
from influence.encoder import LanguageModelLoss
from influence.fisher import SampledLabelLoss
from influence.task import Task

REGIMES = (
    Regime("under-trained", (6,)),
    Regime("two stages", (8, 8), segments=2),
)
CURVATURE_SEED = 0  # of the tokens that the model draws for its curvature


class StagedLanguage:
    """`RestatedTask` whose training follows a regime."""

    step_length = 1.0  # Adam's momentum is a mean

    def __init__(self, settings: LanguageSettings, regime: Regime, *, cache: Path) -> None:
        self.settings = settings
        self.regime = regime
        self._task = _Staged(settings, regime, cache=cache)

    @property
    def protocol(self) -> str:
        """For people."""
        s, epochs = self.settings, " and ".join(map(str, self.regime.epochs))
        return (
            f"Llama of {s.layers} layers of width {s.width}, {epochs} epochs of AdamW on "
            f"{s.documents} records that state {s.documents // STATEMENTS} facts {STATEMENTS} "
            "times each"
        )

    @property
    def stage_of(self) -> np.ndarray:
        """The stage of each document, ``[N]``."""
        return self._task.stage_of

    @property
    def weight_decay(self) -> float:
        """Of AdamW: taken off the weights."""
        return self.settings.weight_decay

    def outputs(
        self,
        subsets: np.ndarray,
        seeds: Sequence[Sequence[int]],
        *,
        advance: Advance = lambda _: None,
    ) -> np.ndarray:
        """Log-likelihood of every answer, mean over the trainings of a subset, ``[S, Q]``."""
        repeats = len(seeds[0])
        flat = [seed for group in seeds for seed in group]
        found = self._task.outputs(np.repeat(subsets, repeats, axis=0), flat, advance=advance)
        return found.reshape(len(subsets), repeats, -1).mean(axis=1)

    def described(self, subsets: np.ndarray, seed: int) -> dict[str, Any]:
        """Everything that decides the scores of one training and what they are judged by."""
        return self._task._inputs(subsets, [seed])

    def courses(self, seeds: Sequence[int]) -> list[Course]:
        """Trainings on all documents, one for each seed."""
        return self._task.courses(seeds)

    def subject(self, checkpoint: Checkpoint) -> Subject:
        """A model of a course, with the documents and the questions."""
        stacked = {name: values[None] for name, values in checkpoint.parameters.items()}
        model = self._task._loaded(self._task.shape.model(stacked, 0), 0)
        documents = [passage.tokens for passage in self._task.passages]
        return Subject(LanguageModelLoss(model), documents, self._task.queries)

    def curvature_loss(self, subject: Subject) -> Task:
        """That of tokens which the model draws itself, as an index of SOURCE has by default."""
        assert isinstance(subject.task, LanguageModelLoss)
        return SampledLabelLoss(subject.task, seed=CURVATURE_SEED)

    def unrolled(self, course: Course, chosen: np.ndarray) -> Tensor:
        """Exact unrolled differentiation of a run for chosen questions, ``[·, N]`` float64."""
        s, shape, flat = self.settings, self._task.shape, Flat.of(course.initial)
        documents = Padded.of([passage.tokens for passage in self._task.passages])
        asked = Padded.of(self._task.queries)
        asked = Padded(asked.input_ids[chosen], asked.targets[chosen])

        def losses(vector: Tensor, of: Padded, rows: Tensor | slice) -> Tensor:
            parameters = {name: part[None] for name, part in flat.parts(vector).items()}
            found = sequence_losses(shape, parameters, of.input_ids[rows][None],
                                    of.targets[rows][None])  # fmt: skip
            return found[0]

        def loss(vector: Tensor, examples: Tensor, weights: Tensor) -> Tensor:
            return (weights * losses(vector, documents, examples)).mean()

        descent = AdamDescent(loss, BETAS, s.weight_decay)
        start = flat.vector(course.initial).double()  # roots of moments near 0 want the digits
        with sdpa_kernel(SDPBackend.MATH):  # the one that can be differentiated twice
            states = run(descent, start, course.steps)
            queries = jacrev(lambda v: losses(v, asked, slice(None)))(states[-1][0])
            return unrolled_scores(descent, states, course.steps, queries, examples=s.documents)


class _Staged(RestatedTask):
    """The training."""

    def __init__(self, settings: LanguageSettings, regime: Regime, *, cache: Path) -> None:
        super().__init__(settings, cache=cache)
        self.regime = regime

    @cached_property
    def stage_of(self) -> np.ndarray:
        """That of the document's person; people who are asked about go in turn."""
        documents = self.facts.documents
        asked = [documents[answer].title for answer in self.facts.answers]
        people = dict.fromkeys([*asked, *(document.title for document in documents)])
        place = {person: number for number, person in enumerate(people)}
        return np.array([place[d.title] % len(self.regime.epochs) for d in documents])

    def courses(self, seeds: Sequence[int]) -> list[Course]:
        everything = np.ones((len(seeds), self.settings.documents), dtype=bool)
        initial = self.shape.initial(seeds, std=self.settings.initial_std)
        kept: list[tuple[int, Parameters, Parameters]] = []
        batches: list[Tensor] = []
        rates: list[float] = []
        marks = self.regime.marks(self._steps(self._plan(everything)))
        for step, state in enumerate(self._run(everything, seeds), start=1):
            batches.append(state.chosen)
            rates.append(state.rate)
            if step in marks:
                now = {n: p.detach().clone() for n, p in state.parameters.items()}
                scale = 1 - BETAS[1] ** step  # moments start at 0
                moments = {
                    n: state.optimizer.state[p]["exp_avg_sq"] / scale
                    for n, p in state.parameters.items()
                }
                kept.append((step, now, moments))
        return [
            Course(
                tuple(
                    Checkpoint(step, _slice(parameters, i), _slice(moments, i))
                    for step, parameters, moments in kept
                ),
                _slice(initial, i),
                tuple(Step(b[i], rate) for b, rate in zip(batches, rates, strict=True)),
            )
            for i in range(len(seeds))
        ]

    def _plan(self, subsets: np.ndarray) -> list[tuple[Tensor, int]]:
        return [
            (
                torch.from_numpy(
                    np.stack([(row & (self.stage_of == stage)).nonzero()[0] for row in subsets])
                ),
                epochs,
            )
            for stage, epochs in enumerate(self.regime.epochs)
        ]

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
        return {**super()._inputs(subsets, seeds), "regime": asdict(self.regime)}


def _slice(parameters: Parameters, number: int) -> dict[str, Tensor]:
    return {name: values[number] for name, values in parameters.items()}
