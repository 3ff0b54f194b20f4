"""What rank and dims buy: LDS against the numbers stored and the time that logging takes.

On the language task, with three questions that a setting must answer:

    rank × D       one rank in every layer, brought down to ``D`` numbers
    fewer layers   a larger rank in some layers against a small one in all
    weak queries   how well cosines of ``D`` numbers agree with those of all coordinates, for
                   queries that come from no document, whose true cosines are as small as noise
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evaluation.cache import default_cache_dir
from evaluation.catalogue import FULL_EKFAC, methods_of, whence
from evaluation.comparison import compare
from evaluation.methods import Dampings, Projected
from evaluation.plot import line_chart
from evaluation.subject import UNSKETCHED, captured
from evaluation.trial import Trial, run_trial
from indexer.progress import Reporter
from influence.atomic import storage_errors, write_bytes
from influence.tokens import TokenSequence

RANKS = (4, 8, 16, 32, 64)
DIMS = (256, 1024, 4096, 16_384)
PARTS = {
    "all layers": ("*",),
    "MLP only": ("*.mlp.*",),
    "attention only": ("*.self_attn.*",),
    "last block only": ("*.layers.1.*",),
}
PART_RANKS = (16, 32, 64)
WEAK_DIMS = (256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768)
WEAK_DAMPING = 0.1


@dataclass(frozen=True)
class Point:
    """One setting.

    Attributes:
        rank: Of every layer.
        part: Which layers (`PARTS`).
        dims: Numbers stored a passage.
        coordinates: Before the sketch.
        dampings: Picked on queries other than those reported.
        lds: On those reported, mean over models.
        share: Of the LDS of full-size EK-FAC.
        recall: Recall@1 of the document that states the answer.
        logging_seconds: Of the pass over all passages that takes their projected gradients.
    """

    rank: int
    part: str
    dims: int
    coordinates: int
    dampings: Dampings
    lds: float
    share: float
    recall: float
    logging_seconds: float


def run_ranks(
    *,
    small: bool,
    out: Path | None,
    cache: Path | None,
    show: Callable[[str], object],
    reporter: Reporter | None = None,
) -> None:
    """Measure all settings, show the table, and write it with its plots.

    Args:
        small: A size of seconds.
        out: Folder for ``ranks.md``, ``ranks.json`` and the plots; None writes nothing.
        cache: Folder of retrained outputs; None is the user's cache.
        show: Gets the table.
        reporter: Told how far the work is.

    Raises:
        StorageFull: A folder cannot be written.
    """
    reporter = reporter or Reporter()
    trial = run_trial(
        "language", small=small, cache=cache or default_cache_dir(), reporter=reporter
    )
    points = measure(trial, reporter, parts=("all layers",) if small else tuple(PARTS))
    weak = weak_agreement(trial)
    table = markdown(trial, points, weak)
    show(table)
    if out is None:
        return
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    content = {"protocol": trial.protocol, "points": [asdict(p) for p in points], "weak": weak}
    files = {"ranks.md": table, "ranks.json": json.dumps(content, indent=1) + "\n"}
    files |= plots(points, weak)
    for name, text in files.items():
        write_bytes(out / name, text.encode())


def measure(trial: Trial, reporter: Reporter, *, parts: tuple[str, ...]) -> list[Point]:
    """Every rank with every D in all layers, and unsketched ranks in some of them."""
    reference = [m for m in methods_of("language") if m.name == FULL_EKFAC]
    (best,) = compare(trial, reference, reference=FULL_EKFAC, reporter=reporter)
    points = []
    for part in parts:
        everywhere = part == "all layers"
        for rank in RANKS if everywhere else PART_RANKS:
            methods = [
                whence(rank, dims, joint=True, layers=PARTS[part])
                for dims in (DIMS if everywhere else (4096,))
            ]
            rows = compare(trial, methods, reference="", reporter=reporter)
            # The last fit is kept, so this is that of the rows.
            fit = captured(trial.subjects[-1], methods[0].bare)
            coordinates = fit.basis.coordinates
            for method, row in zip(methods, rows, strict=True):
                dims = min(_dims(method), coordinates)
                if points and (points[-1].part, points[-1].rank, points[-1].dims) == (
                    part,
                    rank,
                    dims,
                ):
                    continue  # no more coordinates than the dims before
                points.append(
                    Point(
                        rank,
                        part,
                        dims,
                        coordinates,
                        row.dampings,
                        row.lds.mean,
                        row.lds.mean / best.lds.mean,
                        row.recall or 0.0,
                        fit.logging_seconds,
                    )
                )
    return points


def _dims(method: Projected) -> int:
    dims = method.settings.dims
    assert dims != "auto"
    return dims


def weak_agreement(trial: Trial, *, seed: int = 0) -> list[tuple[int, float, float]]:
    """``(D, correlation on weak queries, on the questions)`` with the cosines of all coordinates.

    Weak queries have the lengths and targets of the questions and tokens drawn from all over the
    corpus. Means over queries; the joint whitening is off, so nothing but the sketch differs.
    """
    subject = trial.subjects[-1]
    words = [token for tokens in subject.examples for token in tokens.input_ids]
    draw = np.random.default_rng(seed)
    mixed = [
        TokenSequence(draw.choice(words, len(q)).tolist(), q.targets, q.offsets)
        for q in subject.queries
    ]
    agreement = []
    exact: tuple[np.ndarray, np.ndarray] | None = None
    for dims in (UNSKETCHED, *WEAK_DIMS):
        fitted = whence(64, dims).fit(subject)
        cosines = [
            fitted.scores(fitted.capture(queries), Dampings(WEAK_DAMPING, float("inf"))).relative
            for queries in (mixed, subject.queries)
        ]
        if exact is None:
            exact = (cosines[0], cosines[1])
        elif dims < captured(subject, whence(64, dims).bare).basis.coordinates:
            weak, asked = (_correlation(a, b) for a, b in zip(cosines, exact, strict=True))
            agreement.append((dims, weak, asked))
    return agreement


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


def markdown(trial: Trial, points: list[Point], weak: list[tuple[int, float, float]]) -> str:
    """Protocol and both tables."""
    lines = [
        trial.protocol,
        "",
        "| layers | rank | coordinates | D | c | c₂ | LDS | of EK-FAC's | recall@1 | logging s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {p.part} | {p.rank} | {p.coordinates:,} | {p.dims:,} | {p.dampings.layer:g} | "
        f"{p.dampings.joint:g} | {p.lds:.3f} | {p.share:.1%} | {p.recall:.3f} | "
        f"{p.logging_seconds:.2f} |"
        for p in points
    ]
    lines += [
        "",
        "| D | agreement on weak queries | on the questions |",
        "| ---: | ---: | ---: |",
        *(f"| {dims:,} | {a:.3f} | {b:.3f} |" for dims, a, b in weak),
    ]
    return "\n".join(lines) + "\n"


def plots(points: list[Point], weak: list[tuple[int, float, float]]) -> dict[str, str]:
    """Files by name."""
    everywhere = [p for p in points if p.part == "all layers"]
    by_dims = {
        f"rank {rank}": [(float(p.dims), p.lds) for p in everywhere if p.rank == rank]
        for rank in RANKS
    }
    by_time: dict[str, list[tuple[float, float]]] = {}
    for part in dict.fromkeys(p.part for p in points):
        largest = {p.rank: p for p in points if p.part == part and p.dims <= 4096}  # dims ascend
        by_time[part] = [(p.logging_seconds, p.lds) for p in largest.values()]
    drawn = {
        "ranks-dims.svg": line_chart(by_dims, title="Language task", across="D", up="LDS"),
        "ranks-time.svg": line_chart(
            by_time,
            title="Every rank, at most 4,096 dims",
            across="seconds to log all passages",
            up="LDS",
        ),
    }
    if weak:
        both = {
            "weak queries": [(float(dims), a) for dims, a, _ in weak],
            "questions": [(float(dims), b) for dims, _, b in weak],
        }
        drawn["ranks-weak.svg"] = line_chart(
            both, title="Agreement with the unsketched cosines", across="D", up="correlation"
        )
    return drawn
