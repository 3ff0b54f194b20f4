"""What an answer weighs: counter-measures of a payout that follow from the ledger alone.

Both are readers of entries in front of another one, so that they can stand one behind the other:

    `Normalised`   t_qo / Σ_p |t_qp|: an answer that is long or unusual speaks no louder
    `EqualKeys`    w_q W / (K W_k): all K keys weigh the same together, whoever asks most
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np

from service.ledger.chain import Entry, pack_totals, unpack_totals

NORMALISED = "Each answer's totals are divided by the sum of their absolute values."
EQUAL_KEYS = "All API keys weigh the same: an answer's weight is divided by that of its key."


class Entries(Protocol):
    """What totals are added up from: a `service.ledger.ledger.Ledger`, or a reader before one."""

    def events(self, *kinds: str) -> list[Entry]:
        """All entries of some kinds other than attributions."""
        ...

    def read(self, first: int, last: int) -> Iterator[Entry]:
        """Entries of a range in the order of the chain."""
        ...


class Normalised:
    """Entries whose totals have absolute values that add up to 1, or are all 0."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    def events(self, *kinds: str) -> list[Entry]:
        """See `Entries`."""
        return self._entries.events(*kinds)

    def read(self, first: int, last: int) -> Iterator[Entry]:
        """See `Entries`."""
        owners = {e.sequence: len(e.content["names"]) for e in self.events("owners")}
        for entry in self._entries.read(first, last):
            if entry.kind != "attribution":
                yield entry
                continue
            totals = unpack_totals(entry.totals or b"", owners[entry.owner_set or 0])
            totals = totals.astype(np.float64)
            whole = np.abs(totals).sum()
            yield replace(entry, totals=pack_totals(totals / (whole if whole > 0 else 1.0)))


class EqualKeys:
    """Entries whose keys weigh the same in a range; all of them together weigh what they did."""

    def __init__(self, entries: Entries, weights: Entries) -> None:
        """Read ``entries``; the weights of keys are summed from ``weights``, the ledger itself."""
        self._entries = entries
        self._weights = weights

    def events(self, *kinds: str) -> list[Entry]:
        """See `Entries`."""
        return self._entries.events(*kinds)

    def read(self, first: int, last: int) -> Iterator[Entry]:
        """See `Entries`; the range is read once before, for the weights."""
        of_key: dict[str, float] = {}
        for entry in self._weights.read(first, last):
            if entry.kind == "attribution":
                of_key[_key(entry)] = of_key.get(_key(entry), 0.0) + (entry.weight or 0.0)
        each = sum(of_key.values()) / max(len(of_key), 1)
        for entry in self._entries.read(first, last):
            if entry.kind != "attribution":
                yield entry
            else:
                weight = (entry.weight or 0.0) * each / of_key[_key(entry)]
                yield replace(entry, weight=weight)


def _key(entry: Entry) -> str:
    return json.loads(entry.body)["caller"] or ""
