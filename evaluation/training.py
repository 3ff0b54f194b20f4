"""Does it pay to know how training went? SOURCE and its neighbours in several regimes of training.

Every seed is a training of its own, with its own checkpoints and scores; retrained models and
queries are the same for all. Intervals are over seeds (Student's t). Influence gets the damping
that is best on queries that are not reported; SOURCE has nothing to pick.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation import staged_digits, staged_language
from evaluation.cache import cached
from evaluation.digits import DigitsSettings
from evaluation.language import LanguageSettings
from evaluation.lds import Interval, spearman
from evaluation.staged import Course, StagedTask, halves_of_stages
from evaluation.training_methods import (
    Followed,
    dot_product,
    influence,
    source,
    source_of_segments,
    source_of_whole_curvature,
    tracin,
)
from indexer.progress import Reporter
from influence.atomic import storage_errors, write_bytes

FIRST_SEED = 1000  # beyond those of the retrained models
DAMPINGS = (0.001, 0.01, 0.1, 1.0, 10.0)
INFLUENCE = "influence of the last checkpoint (EK-FAC), best damping"
UNROLLED = "exact unrolled differentiation of the run"
ADAMS = "SOURCE in Adam's own coordinates"
WHOLE = "SOURCE in Adam's own coordinates, whole curvature"
NAMES = ("digits", "language")
DIGITS = DigitsSettings(examples=500, queries=100, hidden=(32,), batch=25, learning_rate=0.05)
SMALL_DIGITS = DigitsSettings(examples=80, queries=20, hidden=(16,), batch=10, learning_rate=0.05)
LANGUAGE = LanguageSettings(
    documents=120, questions=40, width=64, mlp_width=64, batch=10, learning_rate=5e-3,
    warmup_steps=5,
)  # fmt: skip
SMALL_LANGUAGE = LanguageSettings(
    documents=24, questions=4, width=16, mlp_width=16, layers=1, batch=6, learning_rate=5e-3
)
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # its 97.5 % points, by degrees of freedom


@dataclass(frozen=True)
class TrainingSize:
    """Seeds of trainings on everything, subsets, trainings on each subset."""

    seeds: int
    subsets: int
    repeats: int


FULL_SIZES = {
    "digits": TrainingSize(seeds=5, subsets=64, repeats=4),
    "language": TrainingSize(seeds=5, subsets=64, repeats=2),
}
SMALL_SIZE = TrainingSize(seeds=2, subsets=8, repeats=1)


@dataclass(frozen=True)
class TrainingRow:
    """A method in one regime.

    Attributes:
        method: Its name.
        lds: Mean over reported queries; interval over seeds.
        beyond_influence: The same of the difference from influence, seed by seed.
        averaged: LDS of the mean of all seeds' scores.
        first_stage: Of two stages: share of all absolute scores that belongs to documents of the
            first, all queries together, mean over seeds.
    """

    method: str
    lds: Interval
    beyond_influence: Interval
    averaged: float
    first_stage: float | None


def over_seeds(values: Sequence[float]) -> Interval:
    """Mean and Student's 95 % interval."""
    found = np.asarray(values, dtype=np.float64)
    half = STUDENT[len(found) - 1] * found.std(ddof=1) / len(found) ** 0.5
    return Interval(float(found.mean()), float(found.mean() - half), float(found.mean() + half))


def measure(
    task: StagedTask, size: TrainingSize, cache: Path, reporter: Reporter
) -> list[TrainingRow]:
    """Every method in one regime.

    Args:
        task: Data, network and regime.
        size: How much is trained.
        cache: Folder of scores.
        reporter: Told how far the work is.
    """
    name, stages = task.regime.name, len(task.regime.epochs)
    subsets = halves_of_stages(task.stage_of, size.subsets, seed=0)
    seeds = [range(size.repeats * i, size.repeats * (i + 1)) for i in range(size.subsets)]
    total = size.subsets * size.repeats
    with reporter.step(f"Retraining ({name})", total=total, unit="models") as advance:
        outputs = task.outputs(subsets, seeds, advance=advance)
    reported = np.arange(outputs.shape[1]) // stages % 2 == 0  # queries are of each stage in turn
    found: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    totals: dict[str, np.ndarray] = {}
    courses = task.courses(range(FIRST_SEED, FIRST_SEED + size.seeds))
    with reporter.step(f"Scoring ({name})", total=len(courses), unit="models") as advance:
        for number, course in enumerate(courses):
            inputs = {
                "task": task.described(subsets, FIRST_SEED + number),
                "dampings": list(DAMPINGS),
                "methods": 1,
            }
            make = _scores(task, course, subsets, outputs, reported)
            scores = cached(cache, "training-scores", inputs, make)
            for method, values in scores.items():
                sums = subsets.astype(np.float64) @ values.T.astype(np.float64)
                found.setdefault(method, []).append(
                    float(spearman(sums, outputs[:, reported]).mean())
                )
                totals[method] = totals.get(method, 0.0) + sums
                size_of = np.abs(values)
                first = size_of[:, task.stage_of == 0].sum() / size_of.sum()
                shares.setdefault(method, []).append(float(first))
            advance(1)
    return [
        TrainingRow(
            method,
            over_seeds(values),
            over_seeds([a - b for a, b in zip(values, found[INFLUENCE], strict=True)]),
            float(spearman(totals[method], outputs[:, reported]).mean()),
            float(np.mean(shares[method])) if stages > 1 else None,
        )
        for method, values in found.items()
    ]


def _scores(
    task: StagedTask,
    course: Course,
    subsets: np.ndarray,
    outputs: np.ndarray,
    reported: np.ndarray,
) -> Callable[[], dict[str, np.ndarray]]:
    """Scores of the reported queries by every method, ``[·, N]``."""

    def make() -> dict[str, np.ndarray]:
        followed = Followed(task, course)
        held = {c: influence(followed, c).numpy() for c in DAMPINGS}

        def picked_by(scores: np.ndarray) -> float:
            sums = subsets.astype(np.float64) @ scores.T
            return float(spearman(sums, outputs)[~reported].mean())

        best = max(held.values(), key=picked_by)
        adams = {}
        if followed.preconditioners is not None:
            adams[ADAMS] = source(followed, followed.adams).numpy()
            adams[WHOLE] = source_of_whole_curvature(followed).numpy()
        whole = {
            "SOURCE, one eigenbasis (an index)": source(followed).numpy(),
            "SOURCE, an eigenbasis for each segment": source_of_segments(followed).numpy(),
            **adams,
            INFLUENCE: best,
            "TracIn": tracin(followed).numpy(),
            "gradient dot product, last checkpoint": dot_product(followed).numpy(),
        }
        rows = {name: values[reported] for name, values in whole.items()}
        return {**rows, UNROLLED: task.unrolled(course, reported).numpy()}

    return make


def run_training(
    name: str,
    *,
    small: bool,
    out: Path | None,
    cache: Path,
    show: Callable[[str], object],
    reporter: Reporter,
) -> dict[str, list[TrainingRow]]:
    """All regimes of a task, each shown as a table as it is done.

    Args:
        name: One of `NAMES`.
        small: A size of seconds, that shows the machinery and no more.
        out: Folder for ``source-NAME.md`` and ``.json``; None writes nothing.
        cache: Folder of retrained outputs.
        show: Gets each table.
        reporter: Told how far the work is.
    """
    torch.set_num_threads(1)  # such small products gain nothing from more
    size = SMALL_SIZE if small else FULL_SIZES[name]
    rows, tables = {}, []
    for task in _tasks(name, small=small, cache=cache):
        rows[task.regime.name] = measure(task, size, cache, reporter)
        tables.append(_table(task, size, rows[task.regime.name]))
        show(tables[-1])
    if out is not None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / f"source-{name}.md", "\n".join(tables).encode())
        content = {regime: [asdict(row) for row in found] for regime, found in rows.items()}
        write_bytes(out / f"source-{name}.json", json.dumps(content, indent=1).encode() + b"\n")
    return rows


def _tasks(name: str, *, small: bool, cache: Path) -> Iterator[StagedTask]:
    if name == "digits":
        digits = SMALL_DIGITS if small else DIGITS
        for regime in staged_digits.REGIMES:
            yield staged_digits.StagedDigits(digits, regime, cache=cache)
    else:
        language = SMALL_LANGUAGE if small else LANGUAGE
        for regime in staged_language.REGIMES:
            yield staged_language.StagedLanguage(language, regime, cache=cache)


def _table(task: StagedTask, size: TrainingSize, rows: Sequence[TrainingRow]) -> str:
    lines = [
        f"**{task.regime.name}**: {task.protocol}; {size.subsets} halves, {size.repeats} models "
        f"each; {size.seeds} seeds",
        "",
        "| method | LDS [95 %] | beyond influence [95 %] | LDS, seeds averaged | first stage |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row.method} | {_interval(row.lds)} | {_interval(row.beyond_influence, sign='+')} | "
        f"{row.averaged:.3f} | "
        f"{'–' if row.first_stage is None else f'{row.first_stage:.0%}'} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _interval(found: Interval, sign: str = "") -> str:
    return f"{found.mean:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
