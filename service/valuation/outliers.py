"""Documents that stand far out by their own gradient: mislabelled, garbled, or simply odd.

The *self-influence* of a document, ``Σ ‖z̃‖²`` of its passages, says how much it would lower its own
loss; what a model can only learn by heart has much of it (Feldman & Zhang 2020; Pruthi et al.
2020). A gradient is a sum over target tokens, whose squared length grows with their number where
they do not agree, so documents are compared per target token:

    x = ln(Σ ‖z̃‖² / target tokens),      z = (x - median) / (1.4826 · median|x - median|)

Median and absolute deviations are blind to the outliers that are looked for.
"""

from dataclasses import dataclass

import numpy as np

from influence.store import NO_OWNER, IndexReader

_NARROWEST = 0.01  # nats of x: documents nearer to each other than 1 % are alike


@dataclass(frozen=True)
class Oddness:
    """How far one document stands out.

    Attributes:
        document_id: Its id.
        owner: None: nobody's.
        self_influence_per_token: ``Σ ‖z̃‖²`` over its target tokens.
        z: Robust z-score of its logarithm; far above 0: odd, far below: says little.
    """

    document_id: str
    owner: str | None
    self_influence_per_token: float
    z: float


def by_oddness(reader: IndexReader) -> list[Oddness]:
    """All documents that have passages with a gradient, the oddest first."""
    energy: dict[str, float] = {}
    tokens: dict[str, int] = {}
    owner_of: dict[str, str] = {}
    owners = reader.row_owners
    for row, norm in enumerate(reader.norms.astype(np.float64).tolist()):
        passage = reader.passage(row)
        document = passage.document_id
        energy[document] = energy.get(document, 0.0) + norm**2
        tokens[document] = tokens.get(document, 0) + passage.target_tokens
        owner_of[document] = str(owners[row])
    documents = [d for d in energy if energy[d] > 0]
    each = np.array([energy[d] / max(tokens[d], 1) for d in documents])
    found = [
        Oddness(d, None if owner_of[d] == NO_OWNER else owner_of[d], float(value), float(z))
        for d, value, z in zip(documents, each, robust_z(np.log(each)), strict=True)
    ]
    return sorted(found, key=lambda one: -one.z)


def robust_z(values: np.ndarray) -> np.ndarray:
    """Distance from the median in robust standard deviations, ``[n]``; none of no values."""
    if not len(values):
        return values
    away = values - np.median(values)
    return away / max(1.4826 * float(np.median(np.abs(away))), _NARROWEST)
