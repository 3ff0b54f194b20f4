"""Compare methods on a trial: pick the dampings of each on some queries, report on the others."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.lds import Interval, bootstrap, bootstrap_ratio, spearman
from evaluation.methods import Dampings, Method, Scores
from evaluation.retrieval import ranks_of_any
from evaluation.trial import Trial
from indexer.progress import Reporter


@dataclass(frozen=True)
class Candidate:
    """A method with one choice of dampings, on every model of a trial.

    Attributes:
        dampings: The choice.
        lds: Of every model and query, by influence, ``[M, Q]``.
        lds_relative: The same by relative influence.
        lds_averaged: Of the models' scores averaged, by influence, ``[Q]``.
        found: Whether a document that states the answer is first by relative influence,
            ``[M, Q]``; None where no document states an answer.
    """

    dampings: Dampings
    lds: np.ndarray
    lds_relative: np.ndarray
    lds_averaged: np.ndarray
    found: np.ndarray | None


@dataclass(frozen=True)
class Row:
    """A method in the table, with dampings picked on queries other than those behind its figures.

    Attributes:
        method: Its name.
        dampings: Those picked.
        lds: Of one model, mean over models; interval over queries.
        share: ``lds`` as a share of that of the reference method, on the same queries.
        lds_relative: By relative influence.
        lds_averaged: Of all models' scores averaged.
        recall: Recall@1 of a document that states the answer, by relative influence.
        seconds: To fit, to take all gradients and to score all queries; mean over models.
        bytes_a_passage: Kept for each passage.
        curve: LDS of every choice of dampings on the queries it was picked by.
    """

    method: str
    dampings: Dampings
    lds: Interval
    share: Interval | None
    lds_relative: float
    lds_averaged: Interval
    recall: float | None
    seconds: float
    bytes_a_passage: int
    curve: tuple[tuple[Dampings, float], ...]


def compare(
    trial: Trial, methods: Sequence[Method], *, reference: str, reporter: Reporter
) -> list[Row]:
    """The table of a trial, in the order of the methods.

    Args:
        trial: Models and retrained outputs.
        methods: Tried one after the other.
        reference: Name of the method that `Row.share` refers to.
        reporter: Told how far the work is.

    Raises:
        InvalidInput: A method does not apply to the task.
        NumericalError: A solver diverges.
    """
    measured: dict[str, _Measured] = {}
    total = len(methods) * len(trial.subjects)
    with reporter.step(f"Scoring ({trial.name})", total=total, unit="fits") as advance:
        for number in range(len(trial.subjects)):  # methods that share a fit stay neighbours
            for method in methods:
                measured.setdefault(method.name, _Measured(method)).add(trial, number)
                advance(1)
    picked = {name: m.picked(trial) for name, m in measured.items()}
    against = picked[reference].lds if reference in picked else None
    return [measured[method.name].row(trial, against) for method in methods]


class _Measured:
    """What one method gave on the models so far."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.seconds: list[float] = []
        self.bytes_a_passage = 0
        self._lds: list[list[np.ndarray]] = [[] for _ in method.grid]
        self._relative: list[list[np.ndarray]] = [[] for _ in method.grid]
        self._found: list[list[np.ndarray]] = [[] for _ in method.grid]
        self._sums: list[np.ndarray] = []  # of the scores over each subset, [S, Q], over models

    def add(self, trial: Trial, number: int) -> None:
        """Fit one model and score the queries under every choice of dampings."""
        subject = trial.subjects[number]
        fitted = self.method.fit(subject)
        begun = time.perf_counter()
        queries = fitted.capture(subject.queries)
        gradient_seconds = time.perf_counter() - begun
        scoring: list[float] = []
        for choice, dampings in enumerate(self.method.grid):
            begun = time.perf_counter()
            scores = fitted.scores(queries, dampings)
            scoring.append(time.perf_counter() - begun)
            self._take(trial, choice, scores)
        self.seconds.append(fitted.seconds + gradient_seconds + float(np.mean(scoring)))
        self.bytes_a_passage = fitted.bytes_a_passage

    def _take(self, trial: Trial, choice: int, scores: Scores) -> None:
        subsets = trial.subsets.astype(np.float64)
        sums = subsets @ scores.influence.T
        self._lds[choice].append(spearman(sums, trial.outputs))
        self._relative[choice].append(spearman(subsets @ scores.relative.T, trial.outputs))
        if trial.answers is not None:
            first = ranks_of_any(scores.relative, trial.answers) == 1
            self._found[choice].append(first.astype(np.float64))
        if len(self._sums) <= choice:
            self._sums.append(np.zeros_like(sums))
        self._sums[choice] += sums

    def candidates(self, trial: Trial) -> list[Candidate]:
        """One for each choice of dampings."""
        return [
            Candidate(
                dampings,
                np.stack(self._lds[choice]),
                np.stack(self._relative[choice]),
                spearman(self._sums[choice], trial.outputs),
                np.stack(self._found[choice]) if self._found[choice] else None,
            )
            for choice, dampings in enumerate(self.method.grid)
        ]

    def picked(self, trial: Trial) -> Candidate:
        """The choice with the highest LDS on the queries that are not reported."""
        return max(self.candidates(trial), key=lambda c: c.lds[:, ~trial.reported].mean())

    def row(self, trial: Trial, reference: np.ndarray | None) -> Row:
        """Figures on the reported queries."""
        best, reported = self.picked(trial), trial.reported
        own = best.lds[:, reported].mean(axis=0)
        share = None
        if reference is not None:
            share = bootstrap_ratio(own, reference[:, reported].mean(axis=0))
        return Row(
            self.method.name,
            best.dampings,
            bootstrap(own),
            share,
            float(best.lds_relative[:, reported].mean()),
            bootstrap(best.lds_averaged[reported]),
            None if best.found is None else float(best.found[:, reported].mean()),
            float(np.mean(self.seconds)),
            self.bytes_a_passage,
            tuple((c.dampings, float(c.lds[:, ~reported].mean())) for c in self.candidates(trial)),
        )
