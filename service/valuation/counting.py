"""What a passage counts for: counter-measures of a payout, as owners' sums made otherwise.

Influence is linear in the passage, so whatever weight ``c_z`` passages are given, an owner's total
stays one product, ``q̃ · Σ c_z z̃``:

    folded      c_z = 0 for a near-duplicate of a document before it in the index, whosever it is
    norm cap    c_z = min(1, m / ‖z̃‖), with m a multiple of the index's median norm
    relative    c_z = 1 / ‖z̃‖, and the query is divided by its norm: cosines in place of nats

The ledger keeps totals of ``c_z = 1``. Totals that are counted otherwise are made anew from the
texts that were asked (`service.valuation.rescoring`).
"""

from dataclasses import dataclass

import numpy as np

from influence.errors import InvalidInput
from influence.store import IndexReader
from influence.totals import OwnerTotals
from service.valuation.duplicates import find_duplicates

JACCARD, COSINE = 0.8, 0.95  # from which documents are folded
_ROWS = 4_096  # read at once


@dataclass(frozen=True)
class Counting:
    """How passages are counted.

    Attributes:
        fold: Near-duplicates count nothing.
        norm_cap: No vector counts as longer than so many times the median; None: as it is.
        relative: Every vector counts as long as any other.

    Raises:
        InvalidInput: A cap that is not positive, or one beside ``relative``.
    """

    fold: bool = False
    norm_cap: float | None = None
    relative: bool = False

    def __post_init__(self) -> None:
        if self.norm_cap is not None and not 0 < self.norm_cap < np.inf:
            raise InvalidInput(
                f"The cap on norms is {self.norm_cap}. Give a positive multiple of the median norm."
            )
        if self.norm_cap is not None and self.relative:
            raise InvalidInput(
                "Relative influence leaves no norm to cap. Give a cap on norms, or relative "
                "influence, not both."
            )

    @property
    def text(self) -> str:
        """For the policy of a statement; empty where passages count as they are."""
        said = []
        if self.fold:
            said.append(
                "A document that is a near-duplicate of one before it in the index (Jaccard index "
                f"of three-word runs from {JACCARD}, or cosine of vectors from {COSINE}) counts "
                "nothing."
            )
        if self.norm_cap is not None:
            said.append(
                f"No passage's vector counts as longer than {self.norm_cap:g} times the median."
            )
        if self.relative:
            said.append("Influence is relative: a cosine, whatever the lengths of the vectors.")
        return " ".join(said)

    def lengths(self, reader: IndexReader) -> np.ndarray:
        """The length that each row's unit vector counts with, ``c_z ‖z̃‖``, float64 ``[N]``.

        Raises:
            InvalidInput: Duplicates are to be folded and `datasketch` is not installed.
        """
        norms = reader.norms.astype(np.float64)
        if self.relative:
            norms = (norms > 0).astype(np.float64)
        if self.norm_cap is not None:
            norms = np.minimum(norms, self.norm_cap * np.median(norms))
        if self.fold:
            found = find_duplicates(reader, jaccard=JACCARD, cosine=COSINE)
            for one in found:
                norms[list(reader.rows_of(one.document_id))] = 0.0
        return norms

    def sums(self, reader: IndexReader) -> OwnerTotals:
        """Owners' summed vectors under this counting, added up in float64.

        Raises:
            InvalidInput: See `lengths`.
        """
        lengths, owners = self.lengths(reader), reader.row_owners
        names = np.unique(owners)
        place = np.searchsorted(names, owners)
        sums = np.zeros((len(names), reader.dims))
        for start in range(0, len(reader), _ROWS):
            rows = np.arange(start, min(start + _ROWS, len(reader)))
            counted = reader.vectors(rows) * lengths[rows, None]
            for number in np.unique(place[rows]):
                sums[number] += counted[place[rows] == number].sum(axis=0)
        return OwnerTotals(
            tuple(names.tolist()),
            sums.astype(np.float32),
            np.bincount(place[lengths > 0], minlength=len(names)),
            np.bincount(place, weights=lengths**2, minlength=len(names)),
        )
