"""What in the corpus looks wrong: odd documents with their text, near-duplicates; no ledger."""

import numpy as np

from influence.errors import InvalidInput
from service.dashboard.figures import histogram
from service.dashboard.sources import COSINE, JACCARD, Sources, find_as_set
from service.dashboard.view import Column, Fact, Figure, Table, View
from service.valuation.outliers import by_oddness

MAX_Z = 5.0  # as `whence quality` has it
BINS = 40
_EXCERPT = 300  # characters


def quality_view(sources: Sources) -> View:
    """Outliers by self-influence, and clusters of near-duplicates.

    Raises:
        NotFound: There is no index here.
    """
    odd = [one for one in by_oddness(sources.index) if sources.admits(one.document_id)]
    z = np.array([one.z for one in odd])
    counts, edges = np.histogram(z, bins=BINS) if len(z) else (np.zeros(0), np.zeros(1))
    far = [one for one in odd if one.z > MAX_Z]
    tables = [
        Table(
            "outliers",
            "Odd documents",
            "By self-influence per token, the oddest first: mislabelled, garbled, or simply rare. "
            "Look before dropping.",
            (
                Column("document_id", "Document", "document"),
                Column("owner", "Owner", "owner"),
                Column("self_influence_per_token", "Self-influence per token", "number"),
                Column("z", "Robust z", "number"),
                Column("text", "Text", "text"),
            ),
            tuple(
                (
                    one.document_id,
                    one.owner,
                    one.self_influence_per_token,
                    one.z,
                    _excerpt(sources, one.document_id),
                )
                for one in odd
                if one.z > 0
            ),
        )
    ]
    missing: tuple[str, ...] = ()
    facts = [
        Fact("Odd documents", len(far), "count", f"Beyond {MAX_Z:g} robust standard deviations.")
    ]
    try:
        clusters = clusters_of(sources)
    except InvalidInput as error:  # the package that finds them is not installed
        missing = (str(error),)
    else:
        tables.append(clusters)
        facts.append(
            Fact("Near-duplicates", len(clusters.rows), "count", "Besides the first of a cluster.")
        )
    return View(
        "Quality",
        "Documents that stand out, and documents that are there more than once.",
        facts=tuple(facts),
        figures=(
            Figure(
                "self_influence",
                "Distribution of self-influence",
                "Documents by the robust z-score of their self-influence per token.",
                histogram(
                    edges.tolist(),
                    [int(count) for count in counts],
                    unit="robust z",
                    what="documents",
                ),
            ),
        ),
        tables=tuple(tables),
        missing=missing,
    )


def clusters_of(sources: Sources) -> Table:
    """Near-duplicates beside the document that stands for their cluster."""
    found = (sources.duplicates or find_as_set)(sources.index)
    rows = [
        (one.duplicate_of, one.document_id, one.similarity, one.by)
        for one in found
        if sources.admits(one.document_id)
    ]
    return Table(
        "duplicates",
        "Near-duplicates",
        f"By words (Jaccard index of three-word runs from {JACCARD:g} on) or by vectors (cosine "
        f"from {COSINE:g} on); the first of a cluster stands for it.",
        (
            Column("cluster", "Cluster of", "document"),
            Column("document_id", "Document", "document"),
            Column("similarity", "Similarity", "number"),
            Column("by", "By", "text"),
        ),
        tuple(sorted(rows, key=lambda row: (row[0], -row[2], row[1]))),
    )


def _excerpt(sources: Sources, document_id: str) -> str | None:
    found = sources.described(document_id)
    if found is None or found.withheld:
        return None
    return found.text if len(found.text) <= _EXCERPT else f"{found.text[:_EXCERPT]}…"
