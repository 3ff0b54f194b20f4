"""One document and one owner."""

import numpy as np

from influence.errors import NotFound
from service.dashboard.documents import documents_view
from service.dashboard.figures import lines
from service.dashboard.owners import trend_of
from service.dashboard.sources import Sources
from service.dashboard.view import Column, Fact, Figure, Table, View
from service.valuation.outliers import by_oddness

NO_INDEX = "The owner's documents are told where the index is; there is none here."


def document_view(sources: Sources, document_id: str) -> View:
    """A document: its text, its passages, and what the ledger recorded of them.

    Raises:
        NotFound: There is no index here, or no such document in it.
    """
    index = sources.index
    found = sources.described(document_id)
    if found is None:
        raise NotFound(f"Document {document_id[:200]!r} is not in this index.")
    kept = sources.ledger is not None and sources.ledger.head().sequence > 0
    helped = sources.totals.passages if kept else {}
    harmed = sources.totals.against if kept else {}
    rows = []
    for row in index.rows_of(document_id):
        passage = index.passage(row)
        norm = float(np.float64(index.norms[row]))
        recorded = (
            (helped.get(passage.id, 0.0), harmed.get(passage.id, 0.0)) if kept else (None,) * 2
        )
        rows.append((passage.id, passage.start, passage.end, norm**2, *recorded))
    odd = next((one.z for one in by_oddness(index) if one.document_id == document_id), None)
    return View(
        found.title or found.id,
        "One document, as it was indexed.",
        facts=(
            Fact("Id", found.id, "text", "Of the document."),
            Fact("Owner", found.owner, "owner", "Who owns it."),
            Fact("Source", found.source, "text", "Where it is from."),
            Fact("Licence", found.licence, "text", "Its licence."),
            Fact("Robust z", odd, "number", "How far its self-influence per token stands out."),
            Fact(
                "Recorded for",
                sum(row[4] for row in rows) if kept else None,
                "number",
                "Nats, of the answers of the period that it was among the strongest for.",
            ),
            Fact(
                "Recorded against",
                sum(row[5] for row in rows) if kept else None,
                "number",
                "Nats, of those that it was among the strongest against.",
            ),
        ),
        tables=(
            Table(
                "passages",
                "Passages",
                "The rows of the index that the document is.",
                (
                    Column("passage_id", "Passage", "passage"),
                    Column("start", "From character", "count"),
                    Column("end", "To", "count"),
                    Column("self_influence", "Self-influence", "number"),
                    Column("recorded_for", "Recorded for, nats", "number"),
                    Column("recorded_against", "Recorded against, nats", "number"),
                ),
                tuple(rows),
            ),
        ),
        text=found.text,
    )


def owner_view(sources: Sources, owner: str) -> View:
    """An owner: its line of the leaderboard, its trend, its documents.

    Raises:
        NotFound: There is no ledger, or the owner has no line in the period.
        InvalidInput: The period has no entries.
    """
    line = next((one for one in sources.report["owners"] if one["owner"] == owner), None)
    if line is None:
        raise NotFound(
            f"No total of an owner {owner[:200]!r} is recorded in {sources.period.name}. Choose "
            "another period."
        )
    trend = trend_of(sources)
    mine = tuple(row for row in trend.rows if row[1] == owner)
    documents = View("", "", missing=(NO_INDEX,))
    if sources.reader is not None:  # which tells whose a document is
        documents = documents_view(sources)
    return View(
        owner,
        "One owner.",
        facts=(
            Fact("Total", line["total"], "number", "Nats, over all answers of the period."),
            Fact("from", line["low"], "number", "Lower end of its interval at 95 %."),
            Fact("to", line["high"], "number", "Upper end."),
            Fact("Positive share", line["positive_share"], "share", "Its part of what spoke for."),
            *documents.facts,
        ),
        figures=(
            Figure(
                "trend",
                "Trend",
                "The owner's totals in parts of the period.",
                lines([row[0] for row in mine], {owner: [row[2] for row in mine]}, unit="nats"),
            ),
        ),
        tables=(Table(trend.name, trend.title, trend.says, trend.columns, mine), *documents.tables),
        missing=documents.missing,
    )
