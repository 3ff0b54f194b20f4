"""A trial: models, the examples they were trained on, and what retraining on subsets did.

Settings of methods are picked on every second query and reported on the others, so that no figure
comes from a query that had a say in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from evaluation.digits import Classifier, DigitsBatch, DigitsSettings, DigitsTask
from evaluation.language import LanguageSettings
from evaluation.lds import half_subsets
from evaluation.restated import STATEMENTS, RestatedTask
from evaluation.subject import Subject
from indexer.progress import Reporter
from influence.encoder import LanguageModelLoss
from influence.fisher import SampledLabelLoss

Name = Literal["language", "digits"]
NAMES: tuple[Name, ...] = ("language", "digits")
TOKEN_DRAWS = 2  # of every document, for the Gauss-Newton matrix
MODEL_SEED = 1000  # beyond the seeds of the retrained models


@dataclass(frozen=True)
class Trial:
    """See the module.

    Attributes:
        name: Of the task.
        protocol: What was trained and measured, for people.
        subjects: One for each model trained on everything.
        subsets: ``[S, N]`` bool.
        outputs: Measured after retraining on each subset, ``[S, Q]``; higher is better.
        answers: For each query the examples that state its answer; None: there are none.
        reported: Queries that figures are taken from, ``[Q]`` bool; settings are picked on the
            others.
    """

    name: Name
    protocol: str
    subjects: tuple[Subject, ...]
    subsets: np.ndarray
    outputs: np.ndarray
    answers: Sequence[Sequence[int]] | None
    reported: np.ndarray


@dataclass(frozen=True)
class TrialSize:
    """How much is trained: models on everything, subsets, trainings on each subset."""

    models: int
    subsets: int
    repeats: int


SMALL_LANGUAGE = LanguageSettings(
    documents=60, questions=20, width=24, mlp_width=24, layers=1, epochs=8, batch=5
)
# Chosen on a corpus of another seed: past 12 epochs the models know their documents by heart, and
# what a gradient predicts of retraining fades.
LANGUAGE = LanguageSettings(questions=80, epochs=9)
SMALL_DIGITS = DigitsSettings(examples=100, queries=40, hidden=(16,), epochs=6, batch=10)
SMALL_SIZE = TrialSize(models=1, subsets=12, repeats=1)


def run_trial(name: Name, *, small: bool, cache: Path, reporter: Reporter) -> Trial:
    """Train and retrain, or read what an earlier run left in the cache.

    Args:
        name: Of the task.
        small: A size of seconds, that shows the machinery and no more.
        cache: Folder of retrained outputs.
        reporter: Told how far the trainings are.
    """
    if name == "language":
        settings = SMALL_LANGUAGE if small else LANGUAGE
        size = SMALL_SIZE if small else TrialSize(models=3, subsets=160, repeats=1)
        return language_trial(RestatedTask(settings, cache=cache), size, reporter)
    settings = SMALL_DIGITS if small else DigitsSettings()
    size = SMALL_SIZE if small else TrialSize(models=3, subsets=64, repeats=5)
    return digits_trial(DigitsTask(settings, cache=cache), size, reporter)


def language_trial(task: RestatedTask, size: TrialSize, reporter: Reporter) -> Trial:
    """Restated facts; the measurement is the log-likelihood of the answer."""
    s = task.settings
    subsets = half_subsets(s.documents, count=size.subsets, seed=0)
    with reporter.step("Retraining (language)", total=size.subsets, unit="models") as advance:
        outputs = task.outputs(subsets, range(size.subsets), advance=advance)
    documents = [passage.tokens for passage in task.passages]
    subjects = tuple(
        Subject(LanguageModelLoss(model), documents, task.queries, drawn_tokens)
        for model in task.models(range(MODEL_SEED, MODEL_SEED + size.models))
    )
    protocol = (
        f"Llama of {s.layers} layers of width {s.width}, trained from scratch for {s.epochs} "
        f"epochs on {s.documents} records that state {s.documents // STATEMENTS} facts "
        f"{STATEMENTS} times each; {s.questions} questions in other words; "
        f"{size.subsets} models retrained on half of the documents; measured: log-likelihood of "
        "the answer."
    )
    return Trial(
        "language",
        protocol,
        subjects,
        subsets,
        outputs,
        task.facts.stating,
        _every_second(len(task.queries)),
    )


def digits_trial(task: DigitsTask, size: TrialSize, reporter: Reporter) -> Trial:
    """Digits, some wrongly labelled; the measurement is the margin of the true digit."""
    s = task.settings
    subsets = half_subsets(s.examples, count=size.subsets, seed=0)
    seeds = [range(size.repeats * i, size.repeats * (i + 1)) for i in range(size.subsets)]
    total = size.subsets * size.repeats
    with reporter.step("Retraining (digits)", total=total, unit="models") as advance:
        outputs = task.outputs(subsets, seeds, advance=advance)
    examples, queries = _pairs(task.train), _pairs(task.queries)
    subjects = tuple(
        Subject(model, examples, queries, _drawn_labels)
        for model in task.models(range(MODEL_SEED, MODEL_SEED + size.models))
    )
    protocol = (
        f"MLP {'-'.join(map(str, (64, *s.hidden, 10)))} trained for {s.epochs} epochs on "
        f"{s.examples} digits, {s.noise:.0%} of them with a wrong label; {s.queries} queries; "
        f"{size.subsets} halves of the examples, {size.repeats} models retrained on each; "
        "measured: margin of the true digit."
    )
    return Trial("digits", protocol, subjects, subsets, outputs, None, _every_second(len(queries)))


def _every_second(queries: int) -> np.ndarray:
    return np.arange(queries) % 2 == 0


def _pairs(batch: DigitsBatch) -> Sequence[Any]:
    return list(zip(batch.images, batch.labels.tolist(), strict=True))


def drawn_tokens(subject: Subject) -> Tensor:
    """Gauss-Newton rows of a language model: gradients of passages with tokens of its own.

    Where each token is drawn by itself, products of two tokens' gradients are 0 on average, so the
    expectation of ``g gᵀ`` is the sum over tokens of the Gauss-Newton matrices of each.
    """
    assert isinstance(subject.task, LanguageModelLoss)
    rows = [
        subject.gradients(subject.examples, task=SampledLabelLoss(subject.task, seed=seed))
        for seed in range(TOKEN_DRAWS)
    ]
    return torch.cat(rows) / TOKEN_DRAWS**0.5


def _drawn_labels(subject: Subject) -> Tensor:
    """Gauss-Newton rows of a classifier: gradients with labels of its own."""
    task = subject.task
    assert isinstance(task, Classifier)
    images = torch.stack([image for image, _ in subject.examples])
    with torch.no_grad():
        p = task.model(images).softmax(dim=1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.multinomial(p, 1, generator=generator)[:, 0]
    return subject.gradients(list(zip(images, drawn.tolist(), strict=True)))
