"""The answers of a period: how many the index explains, how strongly, what people said."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from service.dashboard.figures import histogram, lines
from service.dashboard.sources import Sources
from service.dashboard.view import Column, Fact, Figure, Table, View
from service.ledger.feedback import given

BINS = 30


@dataclass(frozen=True)
class Answer:
    """What the ledger says of one answer."""

    time_us: int
    stands_out: bool
    best: float | None  # influence of the strongest proponent, nats


def answers_view(sources: Sources) -> View:
    """Coverage, distribution of scores, opinions.

    Raises:
        NotFound: There is no ledger, or nothing is in it.
        InvalidInput: It is no period.
    """
    answers = list(answers_of(sources))
    coverage = coverage_of(sources, answers)
    scores = scores_of(answers)
    opinions = opinions_of(sources)
    covered = sum(answer.stands_out for answer in answers)
    figures = [
        Figure(
            "coverage",
            "Coverage",
            "Share of the answers with a confident proponent, in each part of the period.",
            lines(
                [row[0] for row in coverage.rows],
                {"share": [row[3] for row in coverage.rows]},
                unit="share",
            ),
        )
    ]
    if scores.rows:
        edges = [row[0] for row in scores.rows] + [scores.rows[-1][1]]
        figures.append(
            Figure(
                "scores",
                "Distribution of scores",
                "Answers by the influence of their strongest proponent.",
                histogram(edges, [row[2] for row in scores.rows], unit="nats", what="answers"),
            )
        )
    up = sum(row[4] == "up" for row in opinions.rows)
    return View(
        "Answers",
        "How often the index explains an answer, and how strongly.",
        facts=(
            Fact("Answers", len(answers), "count", "Recorded in the period."),
            Fact(
                "Coverage",
                covered / len(answers) if answers else None,
                "share",
                "Answers whose best proponent stands out at a confidence of .95.",
            ),
            Fact("Thumbs up", up, "count", "Of people who were shown a document."),
            Fact("Thumbs down", len(opinions.rows) - up, "count", "Likewise."),
        ),
        figures=tuple(figures),
        tables=(coverage, scores, opinions),
        missing=sources.unfiltered,
    )


def answers_of(sources: Sources) -> Iterator[Answer]:
    """The answers of the period, in the order of the ledger."""
    period = sources.period
    for entry in sources.book.read(*sources.book.range_of(period.start_us, period.end_us)):
        if entry.kind == "attribution":
            said = entry.content
            best = next((influence for _, influence in said["passages"]), None)
            yield Answer(entry.time_us, said["stands_out"], best)


def coverage_of(sources: Sources, answers: list[Answer]) -> Table:
    """Answers of each part of the period, and those with a confident proponent."""
    rows = []
    for part in sources.slices:
        mine = [a for a in answers if part.start_us <= a.time_us < part.end_us]
        covered = sum(answer.stands_out for answer in mine)
        rows.append((part.name, len(mine), covered, covered / len(mine) if mine else None))
    return Table(
        "coverage",
        "Coverage",
        "An answer is covered if its best proponent stands out of the index at a confidence of "
        ".95; any other most likely comes from data outside it.",
        (
            Column("from", "From", "time"),
            Column("answers", "Answers", "count"),
            Column("covered", "Covered", "count"),
            Column("share", "Share", "share"),
        ),
        tuple(rows),
    )


def scores_of(answers: list[Answer]) -> Table:
    """How many answers have a strongest proponent of which influence; every one is in a bin."""
    best = np.array([answer.best for answer in answers if answer.best is not None])
    counts, edges = np.histogram(best, bins=BINS) if len(best) else (np.zeros(0), np.zeros(1))
    rows = [(a, b, int(n)) for (a, b), n in zip(pairwise(edges.tolist()), counts, strict=True)]
    return Table(
        "scores",
        "Distribution of scores",
        "Influence of the strongest proponent of each answer, in nats.",
        (
            Column("from", "From, nats", "number"),
            Column("to", "To", "number"),
            Column("answers", "Answers", "count"),
        ),
        tuple(rows),
    )


def opinions_of(sources: Sources) -> Table:
    """Thumbs of the period, the newest first."""
    period = sources.period
    return Table(
        "feedback",
        "Thumbs",
        "What people thought of a document that was shown beside an answer.",
        (
            Column("time", "When", "time"),
            Column("request_id", "Request", "text"),
            Column("document_id", "Document", "document"),
            Column("passage_id", "Passage", "passage"),
            Column("verdict", "Thumb", "text"),
            Column("note", "Note", "text"),
        ),
        tuple(
            (
                datetime.fromtimestamp(one.time_us / 1e6, UTC).isoformat(timespec="seconds"),
                one.request_id,
                one.document_id,
                one.passage_id or None,
                one.verdict,
                one.note,
            )
            for one in given(sources.book, period.start_us, period.end_us)
            if sources.admits(one.document_id)
        ),
    )
