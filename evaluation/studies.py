"""Brittleness and curation on the digits: which methods, how much is trained, what is shown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from evaluation.brittleness import Drop, brittleness
from evaluation.catalogue import FULL_EKFAC, FULL_RANK, projected, whence
from evaluation.comparators import Representation, Trak
from evaluation.curation import Kept, detection_auc, keep_shares
from evaluation.digits import DigitsBatch, DigitsSettings, DigitsTask
from evaluation.methods import Dampings, Drawn, FullGradient, Method, Projected
from evaluation.poison import PoisonedDigits
from evaluation.subject import Subject
from evaluation.trial import MODEL_SEED, SMALL_DIGITS
from indexer.progress import Advance, Reporter

DAMPING = Dampings(0.1, math.inf)  # the default of an index; nothing is picked here

METHODS: tuple[Method, ...] = (
    whence(32, 4096),
    Projected(FULL_EKFAC, projected(rank=FULL_RANK)),
    FullGradient("gradient dot product"),
    FullGradient("gradient cosine", cosine=True),
    Trak(),
    Representation(),
    Drawn(),
)


@dataclass(frozen=True)
class StudySize:
    """How much is trained.

    Attributes:
        models: Whose scores are averaged.
        repeats: Models retrained on each set.
        queries: Of which the proponents are removed.
        ks: How many are removed.
        shares: That curation keeps.
    """

    models: int
    repeats: int
    queries: int
    ks: tuple[int, ...]
    shares: tuple[float, ...]


SMALL_STUDY = StudySize(models=1, repeats=1, queries=4, ks=(5, 20), shares=(0.6,))
STUDY = StudySize(models=3, repeats=5, queries=20, ks=(5, 20, 80), shares=(0.9, 0.7, 0.5))


def averaged_scores(task: DigitsTask, size: StudySize, reporter: Reporter) -> dict[str, np.ndarray]:
    """Scores of every method, the mean of those of several models, ``[Q, N]`` each."""
    subjects = _subjects(task, size)
    scores: dict[str, np.ndarray] = {}
    total = len(subjects) * len(METHODS)
    with reporter.step("Scoring (digits)", total=total, unit="fits") as advance:
        for subject in subjects:
            for method in METHODS:
                fitted = method.fit(subject)
                found = fitted.scores(fitted.capture(subject.queries), DAMPING).influence
                scores[method.name] = scores.get(method.name, 0.0) + found / len(subjects)
                advance(1)
    return scores


def study_brittleness(*, small: bool, cache: Path, reporter: Reporter) -> tuple[str, list[Drop]]:
    """Protocol and curves; see `evaluation.brittleness`.

    Args:
        small: A size of seconds, that shows the machinery and no more.
        cache: Folder of retrained outputs.
        reporter: Told how far the trainings are.
    """
    size = SMALL_STUDY if small else STUDY
    settings = replace(SMALL_DIGITS if small else DigitsSettings(), queries=size.queries)
    task = DigitsTask(settings, cache=cache)
    rankings = averaged_scores(task, size, reporter)
    total = (1 + len(rankings) * len(size.ks) * size.queries) * size.repeats
    with reporter.step("Retraining (digits)", total=total, unit="models") as advance:
        retrain = _retrain(task, size, advance)
        everything = np.ones((1, settings.examples), dtype=bool)
        curves = brittleness(rankings, size.ks, retrain, retrain(everything)[0])
    protocol = (
        f"{_trained_on(settings)}; of each of {size.queries} queries the first k proponents are "
        f"removed and {size.repeats} models trained on the rest; scores of {size.models} models "
        "averaged, c = 0.1 everywhere; drop: of the margin of the true digit; flips: queries that "
        "were answered rightly and no longer are."
    )
    return protocol, curves


@dataclass(frozen=True)
class Curation:
    """What `study_curation` found."""

    protocol: str
    kept: list[Kept]
    flipped_auc: dict[str, float]
    poisoned_auc: dict[str, float]


def study_curation(*, small: bool, cache: Path, reporter: Reporter) -> Curation:
    """Keep the most valuable share of digits with wrong labels; find those, and poisoned ones.

    Examples are valued by every second query, and the other queries are measured.
    """
    size = SMALL_STUDY if small else STUDY
    settings = replace(SMALL_DIGITS if small else DigitsSettings(), noise=0.3)
    task = DigitsTask(settings, cache=cache)
    reported = np.arange(settings.queries) % 2 == 1
    values = _valuations(task, size, ~reported, reporter)
    total = (1 + len(values) * len(size.shares)) * size.repeats
    with reporter.step("Retraining (digits)", total=total, unit="models") as advance:
        retrain = _retrain(task, size, advance)
        everything = {"everything": np.zeros(settings.examples)}
        kept = keep_shares(everything, (1.0,), retrain, reported)
        kept += keep_shares(values, size.shares, retrain, reported)
    flipped = (task.train.labels != task.true_labels).numpy()
    poison = PoisonedDigits(replace(settings, noise=0.0), cache=cache)
    poisoned = _valuations(poison, size, np.ones(len(poison.queries.labels), bool), reporter)
    protocol = (
        f"{_trained_on(settings)}; examples are valued by the mean influence on every second "
        f"query, and {size.repeats} models trained on the most valuable share are measured on the "
        f"others by the margin of the true digit; scores of {size.models} models averaged, c = "
        f"0.1. Poisoned: {poison.poisoned.sum()} of {settings.examples} digits have a mark and "
        "the label 0; queries are other digits with the mark."
    )
    return Curation(
        protocol,
        kept,
        {name: detection_auc(found, flipped) for name, found in values.items()},
        # What helps the attack is what has to be found: a poisoned example has a high value for it.
        {name: detection_auc(-found, poison.poisoned) for name, found in poisoned.items()},
    )


def _valuations(
    task: DigitsTask, size: StudySize, chosen: np.ndarray, reporter: Reporter
) -> dict[str, np.ndarray]:
    """Mean influence on some queries ``[Q]`` bool, and what needs no queries: ``[N]`` each."""
    values = {
        name: scores[chosen].mean(axis=0)
        for name, scores in averaged_scores(task, size, reporter).items()
    }
    losses, norms = np.zeros(task.settings.examples), np.zeros(task.settings.examples)
    for subject in _subjects(task, size):
        with torch.no_grad():
            losses += subject.task.losses(subject.task.batch(subject.examples)).numpy()
        norms += subject.training.gradients.norm(dim=1).numpy()
    return {**values, "low loss (perplexity filter)": -losses, "small gradient": -norms}


def _subjects(task: DigitsTask, size: StudySize) -> list[Subject]:
    examples, queries = _pairs(task.train), _pairs(task.queries)
    seeds = range(MODEL_SEED, MODEL_SEED + size.models)
    return [Subject(model, examples, queries) for model in task.models(seeds)]


def _pairs(batch: DigitsBatch) -> Sequence[tuple[torch.Tensor, int]]:
    return list(zip(batch.images, batch.labels.tolist(), strict=True))


def _retrain(task: DigitsTask, size: StudySize, advance: Advance):
    def run(subsets: np.ndarray) -> np.ndarray:
        seeds = [range(size.repeats)] * len(subsets)  # the same ones, so that only the data differ
        return task.outputs(subsets, seeds, advance=advance)

    return run


def _trained_on(s: DigitsSettings) -> str:
    return (
        f"MLP {'-'.join(map(str, (64, *s.hidden, 10)))}, {s.epochs} epochs on {s.examples} digits, "
        f"{s.noise:.0%} of them with a wrong label"
    )
