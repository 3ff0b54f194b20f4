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
from torch import Tensor, nn

from evaluation.cnn import CnnDigits
from evaluation.digits import Classifier, DigitsBatch, DigitsSettings, DigitsTask
from evaluation.language import LanguageSettings
from evaluation.lds import half_subsets
from evaluation.restated import STATEMENTS, RestatedTask
from evaluation.subject import Subject
from evaluation.tabular import DiabetesTask, TumourTask
from indexer.progress import Reporter
from influence.encoder import LanguageModelLoss
from influence.fisher import SampledLabelLoss

Name = Literal["language", "digits", "cnn", "tumours", "diabetes"]
NAMES: tuple[Name, ...] = ("language", "digits", "cnn", "tumours", "diabetes")
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

    name: str
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


_TABLE = DigitsSettings(examples=300, queries=140, hidden=(16,), epochs=20, batch=20)
# Tasks whose models train in stacks: how to make one, its settings, how much is trained.
STACKED: dict[Name, tuple[type[DigitsTask], DigitsSettings, TrialSize]] = {
    "digits": (DigitsTask, DigitsSettings(), TrialSize(models=3, subsets=64, repeats=5)),
    "cnn": (CnnDigits, DigitsSettings(epochs=15), TrialSize(models=1, subsets=64, repeats=2)),
    "tumours": (TumourTask, _TABLE, TrialSize(models=3, subsets=64, repeats=5)),
    "diabetes": (DiabetesTask, _TABLE, TrialSize(models=3, subsets=64, repeats=5)),
}


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
    make, settings, size = STACKED[name]
    if small:
        settings, size = SMALL_DIGITS, SMALL_SIZE
    return stacked_trial(name, make(settings, cache=cache), size, reporter)


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
        every_second(len(task.queries)),
    )


def stacked_trial(name: Name, task: DigitsTask, size: TrialSize, reporter: Reporter) -> Trial:
    """Examples, some wrongly labelled; measured is the margin of the truth, or minus the error."""
    s = task.settings
    subsets = half_subsets(s.examples, count=size.subsets, seed=0)
    seeds = [range(size.repeats * i, size.repeats * (i + 1)) for i in range(size.subsets)]
    total = size.subsets * size.repeats
    with reporter.step(f"Retraining ({name})", total=total, unit="models") as advance:
        outputs = task.outputs(subsets, seeds, advance=advance)
    examples, queries = _pairs(task.train), _pairs(task.queries)
    gauss_newton = None if name == "diabetes" else _drawn_labels
    subjects = tuple(
        Subject(model, examples, queries, gauss_newton)
        for model in task.models(range(MODEL_SEED, MODEL_SEED + size.models))
    )
    network = ", ".join(_layer(layer) for layer in task.module() if list(layer.parameters()))
    protocol = (
        f"{name}: {network}; trained for {s.epochs} epochs on {s.examples} examples, "
        f"{s.noise:.0%} of them with a wrong label; {s.queries} queries; {size.subsets} halves of "
        f"the examples, {size.repeats} models retrained on each; measured: "
        + ("minus half the squared error." if name == "diabetes" else "margin of the true class.")
    )
    return Trial(name, protocol, subjects, subsets, outputs, None, every_second(len(queries)))


def _layer(module: nn.Module) -> str:
    weight = module.get_parameter("weight")
    return f"{type(module).__name__} {'x'.join(map(str, weight.shape))}"


def every_second(queries: int) -> np.ndarray:
    """Queries that are reported on, ``[Q]`` bool; settings are picked on the others."""
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
