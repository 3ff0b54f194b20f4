"""All documents by their summed influence on a set of queries, in one pass over the vectors.

Influence is linear on both sides: ``Σ_q score(q, z) = (Σ_q q̃) · z̃``. So the queries are added up
first, and a validation set of any size costs one scan of the index. A document that speaks against
the set is *harmful* to it: training on it made the set's answers less likely.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from influence.errors import InvalidInput
from influence.store import NO_OWNER, IndexReader

_ROWS = 4_096  # read at once


@dataclass(frozen=True)
class DocumentWorth:
    """What one document is worth for the set.

    Attributes:
        document_id: Its id.
        owner: None: nobody's.
        influence: Summed over queries and passages, nats; positive: it helped.
        self_influence: ``Σ ‖z̃‖²`` of its passages; huge ones are outliers, or mislabelled.
        source: None: it names none.
    """

    document_id: str
    owner: str | None
    influence: float
    self_influence: float
    source: str | None = None


@dataclass(frozen=True)
class GroupWorth:
    """What the documents of one owner or source are worth together; None: of nobody, of none."""

    name: str | None
    documents: int
    influence: float


def rank_documents(reader: IndexReader, query_sum: np.ndarray) -> list[DocumentWorth]:
    """All documents, the most helpful first; equal ones in the order of the index.

    Args:
        reader: The index.
        query_sum: ``Σ_q q̃``, vectors before normalisation, ``[D]``.
    """
    norms = reader.norms.astype(np.float64)
    influence: dict[str, float] = {}
    energy: dict[str, float] = {}
    owner_of: dict[str, str] = {}
    source_of: dict[str, str] = {}
    owners, sources = reader.row_owners, reader.row_sources
    for start in range(0, len(reader), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(reader)))
        scores = (reader.vectors(rows).astype(np.float64) @ query_sum) * norms[rows]
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True):
            document = reader.passage(row).document_id
            influence[document] = influence.get(document, 0.0) + score
            energy[document] = energy.get(document, 0.0) + norms[row] ** 2
            owner_of[document] = str(owners[row])
            source_of[document] = str(sources[row])
    worth = [
        DocumentWorth(
            document,
            None if owner_of[document] == NO_OWNER else owner_of[document],
            total,
            float(energy[document]),
            source_of[document] or None,
        )
        for document, total in influence.items()
    ]
    return sorted(worth, key=lambda one: -one.influence)


def grouped(ranked: Iterable[DocumentWorth], *, by: Literal["owner", "source"]) -> list[GroupWorth]:
    """Sums over the documents of each owner or source, the highest first."""
    influence: dict[str | None, float] = {}
    documents: dict[str | None, int] = {}
    for one in ranked:
        name = one.owner if by == "owner" else one.source
        influence[name] = influence.get(name, 0.0) + one.influence
        documents[name] = documents.get(name, 0) + 1
    found = [GroupWorth(name, documents[name], total) for name, total in influence.items()]
    return sorted(found, key=lambda one: (-one.influence, one.name or ""))


def kept(
    ranked: Iterable[DocumentWorth], *, budget: int | None, at_least: float | None
) -> list[str]:
    """Ids of the documents to keep: the best ``budget``, and of these what helps enough.

    Raises:
        InvalidInput: Nothing would be left.
    """
    chosen = [one.document_id for one in ranked if at_least is None or one.influence >= at_least]
    chosen = chosen[:budget]
    if not chosen:
        raise InvalidInput(
            f"No document has an influence of {at_least} or more, so none would be kept. Lower "
            "--at-least."
        )
    return chosen
