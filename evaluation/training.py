"""Does it pay to know how training went? SOURCE and its neighbours in three regimes of training.

Every seed is a training of its own, with its own checkpoints and scores; retrained models and
queries are the same for all. Intervals are over seeds (Student's t). Influence gets the damping
that is best on queries that are not reported; SOURCE has nothing to pick.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation.cache import cached
from evaluation.digits import DigitsSettings
from evaluation.lds import Interval, spearman
from evaluation.staged_digits import REGIMES, Course, Regime, StagedDigits
from evaluation.training_methods import (
    Followed,
    dot_product,
    influence,
    source,
    source_of_segments,
    tracin,
    unrolled,
)
from indexer.progress import Reporter
from influence.atomic import storage_errors, write_bytes

FIRST_SEED = 1000  # beyond those of the retrained models
DAMPINGS = (0.001, 0.01, 0.1, 1.0, 10.0)
INFLUENCE = "influence of the last checkpoint (EK-FAC), best damping"
UNROLLED = "exact unrolled differentiation of the run"
FULL = DigitsSettings(examples=500, queries=100, hidden=(32,), batch=25, learning_rate=0.05)
SMALL = DigitsSettings(examples=80, queries=20, hidden=(16,), batch=10, learning_rate=0.05)
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}  # its 97.5 % points, by degrees of freedom


@dataclass(frozen=True)
class TrainingSize:
    """Seeds of trainings on everything, subsets, trainings on each subset."""

    seeds: int
    subsets: int
    repeats: int


FULL_SIZE = TrainingSize(seeds=5, subsets=64, repeats=4)
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
    regime: Regime, settings: DigitsSettings, size: TrainingSize, cache: Path, reporter: Reporter
) -> list[TrainingRow]:
    """Every method in one regime.

    Args:
        regime: How models are trained.
        settings: Data and network.
        size: How much is trained.
        cache: Folder of retrained outputs and of scores.
        reporter: Told how far the work is.
    """
    task = StagedDigits(settings, regime, cache=cache)
    subsets = task.subsets(size.subsets, seed=0)
    seeds = [range(size.repeats * i, size.repeats * (i + 1)) for i in range(size.subsets)]
    total = size.subsets * size.repeats
    with reporter.step(f"Retraining ({regime.name})", total=total, unit="models") as advance:
        outputs = task.outputs(subsets, seeds, advance=advance)
    stages = len(regime.epochs)
    reported = np.arange(settings.queries) // stages % 2 == 0
    found: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    totals: dict[str, np.ndarray] = {}
    courses = task.courses(range(FIRST_SEED, FIRST_SEED + size.seeds))
    with reporter.step(f"Scoring ({regime.name})", total=len(courses), unit="models") as advance:
        for number, course in enumerate(courses):
            inputs = {
                "task": task.described(subsets, FIRST_SEED + number),
                "dampings": list(DAMPINGS),
                "methods": 1,
            }
            make = _scores(task, course, subsets, outputs, reported)
            scores = cached(cache, "training-scores", inputs, make)
            for name, values in scores.items():
                sums = subsets.astype(np.float64) @ values.T.astype(np.float64)
                found.setdefault(name, []).append(
                    float(spearman(sums, outputs[:, reported]).mean())
                )
                totals[name] = totals.get(name, 0.0) + sums
                size_of = np.abs(values)
                first = size_of[:, task.stage_of == 0].sum() / size_of.sum()
                shares.setdefault(name, []).append(float(first))
            advance(1)
    return [
        TrainingRow(
            name,
            over_seeds(values),
            over_seeds([a - b for a, b in zip(values, found[INFLUENCE], strict=True)]),
            float(spearman(totals[name], outputs[:, reported]).mean()),
            float(np.mean(shares[name])) if stages > 1 else None,
        )
        for name, values in found.items()
    ]


def _scores(
    task: StagedDigits,
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
        whole = {
            "SOURCE, one eigenbasis (an index)": source(followed).numpy(),
            "SOURCE, an eigenbasis for each segment": source_of_segments(followed).numpy(),
            INFLUENCE: best,
            "TracIn": tracin(followed).numpy(),
            "gradient dot product, last checkpoint": dot_product(followed).numpy(),
        }
        rows = {name: values[reported] for name, values in whole.items()}
        return {**rows, UNROLLED: unrolled(followed, reported).numpy()}

    return make


def run_training(
    *,
    small: bool,
    out: Path | None,
    cache: Path,
    show: Callable[[str], object],
    reporter: Reporter,
) -> dict[str, list[TrainingRow]]:
    """All regimes, each shown as a table as it is done.

    Args:
        small: A size of seconds, that shows the machinery and no more.
        out: Folder for ``source.md`` and ``.json``; None writes nothing.
        cache: Folder of retrained outputs.
        show: Gets each table.
        reporter: Told how far the work is.
    """
    torch.set_num_threads(1)  # such small products gain nothing from more
    settings, size = (SMALL, SMALL_SIZE) if small else (FULL, FULL_SIZE)
    rows, tables = {}, []
    for regime in REGIMES:
        rows[regime.name] = measure(regime, settings, size, cache, reporter)
        tables.append(_table(regime, settings, size, rows[regime.name]))
        show(tables[-1])
    if out is not None:
        with storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        write_bytes(out / "source.md", "\n".join(tables).encode())
        content = {name: [asdict(row) for row in found] for name, found in rows.items()}
        write_bytes(out / "source.json", json.dumps(content, indent=1).encode() + b"\n")
    return rows


def _table(
    regime: Regime, settings: DigitsSettings, size: TrainingSize, rows: Sequence[TrainingRow]
) -> str:
    epochs = " and ".join(map(str, regime.epochs))
    lines = [
        f"**{regime.name}**: MLP {'-'.join(map(str, (64, *settings.hidden, 10)))}, {epochs} epochs "
        f"of {settings.examples} digits, {settings.noise:.0%} of them with a wrong label; "
        f"{size.subsets} halves, {size.repeats} models each; {size.seeds} seeds",
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
