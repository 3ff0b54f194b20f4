"""Which settings of an index rank best? Tried on a sample, picked on some queries, told of others.

Rank, dims, both dampings and the ranking are tried together; a change of dims or dampings costs no
pass of the model. What is best depends on the model and its data: no setting is right everywhere.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.catalogue import whence
from evaluation.lds import Interval, bootstrap
from evaluation.methods import Dampings
from evaluation.plot import line_chart
from evaluation.subject import Subject
from indexer.progress import Reporter

# Scores [Q, N] -> how good the ranking of each query is, [Q]; higher is better.
Criterion = Callable[[np.ndarray], np.ndarray]

RANKINGS = ("relative", "influence")
RANKS = (16, 32, 64)
DIMS = (1024, 4096, 16_384)
JOINT_DAMPINGS = (0.1, 0.3, 1.0, 3.0, math.inf)


@dataclass(frozen=True)
class Choice:
    """Settings of an index and how it ranks."""

    rank: int
    dims: int
    damping: float
    joint_damping: float
    ranking: str


DEFAULT = Choice(64, 16_384, 0.1, 1.0, "relative")


@dataclass(frozen=True)
class Tuned:
    """What was tried.

    Attributes:
        best: The choice with the highest mean on the queries that it is picked by.
        reported: Of the best, on the other queries.
        default: Of `DEFAULT`, on the same other queries.
        curve: For every choice its mean on the queries that it is picked by.
    """

    best: Choice
    reported: Interval
    default: Interval
    curve: dict[Choice, float]


def tune(
    subject: Subject,
    criterion: Criterion,
    reported: np.ndarray,
    *,
    ranks: Sequence[int] = RANKS,
    dims: Sequence[int] = DIMS,
    reporter: Reporter,
) -> Tuned:
    """Try every choice on one model.

    Args:
        subject: The model, a sample of its documents, and queries.
        criterion: How good scores are.
        reported: Queries that figures are taken from, ``[Q]`` bool; the choice is made on the
            others, of which there is at least one.
        ranks: To try.
        dims: To try.
        reporter: Told how far it is.

    Raises:
        ValueError: All queries are reported on, or none is.
    """
    if reported.all() or not reported.any():
        raise ValueError(
            f"{reported.sum()} of {len(reported)} queries are reported on; both kinds are needed."
        )
    found: dict[Choice, np.ndarray] = {}
    total = len(set(ranks) | {DEFAULT.rank}) * len(set(dims) | {DEFAULT.dims})
    with reporter.step("Trying settings", total=total, unit="settings") as advance:
        for rank in sorted(set(ranks) | {DEFAULT.rank}):
            for width in sorted(set(dims) | {DEFAULT.dims}):
                found |= _tried(subject, criterion, rank, width)
                advance(1)
    curve = {
        choice: float(values[~reported].mean())
        for choice, values in found.items()
        if choice.rank in ranks and choice.dims in dims
    }
    best = max(curve, key=lambda choice: curve[choice])
    return Tuned(best, bootstrap(found[best][reported]), bootstrap(found[DEFAULT][reported]), curve)


def _tried(
    subject: Subject, criterion: Criterion, rank: int, dims: int
) -> dict[Choice, np.ndarray]:
    method = whence(rank, dims, joint=True)
    fitted = method.fit(subject)
    queries = fitted.capture(subject.queries)
    found = {}
    for damping in method.dampings:
        for joint in JOINT_DAMPINGS:
            scores = fitted.scores(queries, Dampings(damping, joint))
            for ranking, values in zip(RANKINGS, (scores.relative, scores.influence), strict=True):
                choice = Choice(rank, dims, damping, joint, ranking)
                found[choice] = criterion(values)
    return found


def curves(tuned: Tuned, measure: str) -> str:
    """For every setting its values, each with the best that any choice with it reaches."""
    lines = [f"| setting | value | best {measure} of a choice with it |", "| --- | ---: | ---: |"]
    for name in ("rank", "dims", "damping", "joint_damping", "ranking"):
        best: dict[str, float] = {}
        for choice, value in tuned.curve.items():
            told = str(getattr(choice, name))
            best[told] = max(value, best.get(told, -math.inf))
        chosen = str(getattr(tuned.best, name))
        lines += [
            f"| {name} | {'**' * (told == chosen)}{told}{'**' * (told == chosen)} | {value:.3f} |"
            for told, value in best.items()
        ]
    return "\n".join(lines)


def plots(tuned: Tuned, measure: str) -> dict[str, str]:
    """The same as SVG, files by name: rank and dims, and both dampings around the choice."""
    best = tuned.best
    by_dims: dict[str, dict[float, float]] = {}
    by_damping: dict[str, dict[float, float]] = {}
    for choice, value in tuned.curve.items():
        line = by_dims.setdefault(f"rank {choice.rank}", {})
        line[choice.dims] = max(value, line.get(choice.dims, -math.inf))
        if (choice.rank, choice.dims, choice.ranking) == (best.rank, best.dims, best.ranking):
            joint = "off" if math.isinf(choice.joint_damping) else f"{choice.joint_damping:g}"
            by_damping.setdefault(f"c₂ {joint}", {})[choice.damping] = value
    around = f"rank {best.rank}, D {best.dims:,}, {best.ranking}"
    return {
        "tune-dims.svg": _chart(by_dims, "The best that a rank and dims reach", "D", measure),
        "tune-dampings.svg": _chart(by_damping, f"Dampings at {around}", "c", measure),
    }


def _chart(lines: dict[str, dict[float, float]], title: str, across: str, up: str) -> str:
    values = [value for line in lines.values() for value in line.values()]
    margin = 0.05 * (max(values) - min(values)) or 0.05
    return line_chart(
        {name: list(line.items()) for name, line in lines.items()},
        title=title,
        across=across,
        up=up,
        bottom=min(values) - margin,
        top=max(values) + margin,
    )
