"""Documents that their neighbours contradict: likely mislabelled, or simply false.

A wrong label turns the gradient of a document around, and leaves its input as it is. So of the
documents that bear most on it, those most like it, it is an opponent rather than a proponent:

    agreement(z) = mean over the k documents y of greatest |cos(z̃, ỹ)| of cos(z̃, ỹ),   in [-1, 1]

A document that is below 0 speaks against what is most like it. Self-influence
(`service.valuation.outliers`) finds what is hard to learn, wrong or not; this tells them apart
(docs/valuation.md has figures). Every pair is compared, in blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from influence.store import NO_OWNER, IndexReader
from service.valuation.duplicates import unit_document_vectors

NEIGHBOURS = 10
BLOCK = 1_024  # documents whose vectors are compared at once


@dataclass(frozen=True)
class Agreement:
    """How far its neighbours agree with one document.

    Attributes:
        document_id: Its id.
        owner: None: nobody's.
        agreement: Mean cosine with the documents that bear most on it.
        against: Of these the strongest opponent; None where none of them is one.
    """

    document_id: str
    owner: str | None
    agreement: float
    against: str | None


def by_agreement(reader: IndexReader, *, neighbours: int = NEIGHBOURS) -> list[Agreement]:
    """All documents that have passages with a gradient, the most contradicted first."""
    ids = [d for d in reader.document_ids() if reader.rows_of(d)]

    def units_of(rows: Sequence[int]) -> np.ndarray:
        return unit_document_vectors(reader, [ids[r] for r in rows])

    values, worst = neighbour_agreement(len(ids), units_of, neighbours=neighbours)
    found = []
    for place, document_id in enumerate(ids):
        owner = str(reader.row_owners[reader.rows_of(document_id)[0]])
        found.append(
            Agreement(
                document_id,
                None if owner == NO_OWNER else owner,
                float(values[place]),
                ids[worst[place]] if worst[place] >= 0 else None,
            )
        )
    return sorted(found, key=lambda one: (one.agreement, one.document_id))


def neighbour_agreement(
    count: int, units_of: Callable[[Sequence[int]], np.ndarray], *, neighbours: int
) -> tuple[np.ndarray, np.ndarray]:
    """The agreement of each of ``count`` vectors, and the neighbour that is most against it.

    Args:
        count: n.
        units_of: Some of the vectors, each of length 1 or 0, ``[m, D]``.
        neighbours: k; all others where there are fewer.

    Returns:
        ``[n]``, 0 where there is nothing to compare with; and ``[n]``, -1 where none is against.
    """
    blocks = [range(i, min(i + BLOCK, count)) for i in range(0, count, BLOCK)]
    values, worst = np.zeros(count), np.full(count, -1)
    for block in blocks:
        units = units_of(block)
        near = np.zeros((len(block), 0))  # cosines of greatest size so far, [m, k]
        of = np.zeros((len(block), 0), dtype=np.int64)
        for other in blocks:
            cosines = units @ (units if other == block else units_of(other)).T
            if other == block:
                np.fill_diagonal(cosines, 0.0)
            near = np.concatenate([near, cosines], axis=1)
            of = np.concatenate([of, np.tile(np.array(other), (len(block), 1))], axis=1)
            kept = np.argsort(-np.abs(near), axis=1, kind="stable")[:, :neighbours]
            near = np.take_along_axis(near, kept, axis=1)
            of = np.take_along_axis(of, kept, axis=1)
        values[block] = near.sum(axis=1) / max(min(neighbours, count - 1), 1)
        lowest = near.argmin(axis=1)
        rows = np.arange(len(block))
        worst[block] = np.where(near[rows, lowest] < 0, of[rows, lowest], -1)
    return values, worst
