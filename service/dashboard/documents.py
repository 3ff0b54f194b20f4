"""Documents by what the ledger recorded of them: most valuable, most harmful, never used."""

from collections.abc import Iterable

from service.dashboard.figures import bars
from service.dashboard.sources import Sources
from service.dashboard.view import Column, Fact, Figure, Table, View
from service.valuation.report import by_document

SHOWN = 15  # bars
_CUT = (
    "Each answer records its five strongest passages on either side, so this is a cut, unlike the "
    "owners' totals."
)
_COLUMNS = (
    Column("document_id", "Document", "document"),
    Column("title", "Title", "text"),
    Column("owner", "Owner", "owner"),
    Column("recorded", "Recorded influence, nats", "number"),
)


def documents_view(sources: Sources) -> View:
    """Most valuable, most harmful and never used.

    Raises:
        NotFound: There is no ledger, or nothing is in it.
        InvalidInput: It is no period.
    """
    helped = by_document(sources.totals.passages)
    harmed = by_document(sources.totals.against)
    best = _table(
        sources,
        "valuable",
        "Most valuable",
        f"Documents whose passages spoke for answers. {_CUT}",
        sorted(helped.items(), key=lambda item: (-item[1], item[0])),
    )
    worst = _table(
        sources,
        "harmful",
        "Most harmful",
        f"Documents whose passages spoke against answers that were given. {_CUT}",
        sorted(harmed.items(), key=lambda item: (item[1], item[0])),
    )
    missing: tuple[str, ...] = ()
    tables, facts = [best, worst], []
    if sources.reader is None:
        missing = ("What was never used is told where the index is; there is none here.",)
    else:
        unused = never_used(sources)
        tables.append(unused)
        every = sum(1 for document in sources.owner_of if sources.admits(document))
        facts = [
            Fact("Documents", every, "count", "With a passage in the index."),
            Fact("Never used", len(unused.rows), "count", "In no answer of the period."),
        ]
    return View(
        "Documents",
        "Which documents the answers of the period came from, and which spoke against them.",
        facts=tuple(facts),
        figures=tuple(
            Figure(
                table.name,
                table.title,
                f"{table.says} The table has the numbers.",
                bars(
                    [row[1] or row[0] for row in table.rows[:SHOWN]],
                    [row[3] for row in table.rows[:SHOWN]],
                    unit="nats",
                ),
            )
            for table in (best, worst)
            if table.rows
        ),
        tables=tuple(tables),
        missing=missing,
    )


def never_used(sources: Sources) -> Table:
    """Documents of the index that no answer of the period recorded, in the index's order."""
    totals = sources.totals
    used = by_document(totals.passages).keys() | by_document(totals.against).keys()
    rows = tuple(
        (document, owner)
        for document, owner in sources.owner_of.items()
        if document not in used and sources.admits(document)
    )
    return Table(
        "unused",
        "Never used",
        "Documents that were not among the five strongest of any answer, for it or against it.",
        (Column("document_id", "Document", "document"), Column("owner", "Owner", "owner")),
        rows,
    )


def _table(
    sources: Sources, name: str, title: str, says: str, items: Iterable[tuple[str, float]]
) -> Table:
    rows = []
    for document, influence in items:
        if sources.admits(document):
            found = sources.described(document)
            title_, owner = (None, None) if found is None else (found.title, found.owner)
            rows.append((document, title_, owner, influence))
    return Table(name, title, says, _COLUMNS, tuple(rows))
