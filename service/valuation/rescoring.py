"""Questions of the ledger asked again, from their texts: for what its totals do not say.

The ledger keeps the totals of owners. What single documents were worth, or owners whose passages
count otherwise (`service.valuation.counting`), follows from the vectors of the queries, and those
from the texts, where they were kept (WHENCE_LEDGER_TEXTS), with the model and the version of the
index that answered. Every question is encoded alone, so the same ledger gives the same bits.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from influence.errors import InvalidInput
from service.encoding import encode_each, query_of
from service.ledger.chain import Entry, pack_totals
from service.ledger.ledger import PAGE, Ledger
from service.schemas import AttributeRequest
from service.valuation.counting import Counting

if TYPE_CHECKING:
    from service.engine import Engine


def vector_of(engine: "Engine", request: AttributeRequest) -> np.ndarray:
    """The vector of a question before normalisation, float64 ``[D]``.

    Raises:
        InvalidInput: It cannot be attributed.
        NumericalError: Its gradient is zero or not finite.
    """
    query = query_of(request, engine.loaded, max_tokens=engine.loaded.context_length)
    (encoded,) = encode_each(engine.encoder, [query])
    if isinstance(encoded, Exception):
        raise encoded
    return encoded.vector.cpu().numpy().astype(np.float64)


class Asked:
    """The attributions of a ledger with their questions.

    Args:
        ledger: With the texts.
        engine: Of the version that answered.
    """

    def __init__(self, ledger: Ledger, engine: "Engine") -> None:
        self._ledger = ledger
        self._engine = engine
        self._sets = {entry.sequence: entry.content for entry in ledger.events("owners")}

    def vectors(self, first: int, last: int) -> Iterator[tuple[Entry, np.ndarray | None]]:
        """Every entry of a range; an attribution with its vector ``[D]``.

        Raises:
            InvalidInput: A text was not kept, or another version answered.
            LedgerUnavailable: The database cannot be read.
        """
        for start in range(first, last + 1, PAGE):
            until = min(start + PAGE - 1, last)
            texts = self._ledger.texts(start, until)
            for entry in self._ledger.read(start, until):
                if entry.kind != "attribution":
                    yield entry, None
                else:
                    yield entry, self._vector(entry, texts.get(entry.sequence))

    def _vector(self, entry: Entry, text: str | None) -> np.ndarray:
        answered = self._sets[entry.owner_set or 0]["version"]
        if answered != self._engine.reader.version:
            raise InvalidInput(
                f"Entry {entry.sequence} was answered by version {answered} of its index, and "
                f"version {self._engine.reader.version} is open. Choose a period in which that "
                "one answered, or `whence rollback` to the other."
            )
        if text is None:
            raise InvalidInput(
                f"The text of entry {entry.sequence} was not kept, or is erased, so it cannot be "
                "asked again. Serve with WHENCE_LEDGER_TEXTS=true, or count by what the ledger "
                "has."
            )
        return vector_of(self._engine, AttributeRequest.model_validate_json(text))


class Recounted:
    """The entries of a ledger with owners' totals under another counting.

    Args:
        ledger: With the texts.
        engine: Of the version that answered.
        counting: What passages count for.

    Raises:
        InvalidInput: See `Counting.lengths`.
    """

    def __init__(self, ledger: Ledger, engine: "Engine", counting: Counting) -> None:
        self._ledger = ledger
        self._asked = Asked(ledger, engine)
        self._counted = counting.sums(engine.reader)
        self._relative = counting.relative

    def events(self, *kinds: str) -> list[Entry]:
        """See `service.ledger.ledger.Ledger.events`."""
        return self._ledger.events(*kinds)

    def read(self, first: int, last: int) -> Iterator[Entry]:
        """Entries in the order of the chain; their hashes are those of the recorded ones.

        Raises:
            InvalidInput: See `Asked.vectors`.
        """
        sums = self._counted.sums.astype(np.float64)
        place = {name: number for number, name in enumerate(self._counted.names)}
        sets = {entry.sequence: entry.content["names"] for entry in self.events("owners")}
        for entry, vector in self._asked.vectors(first, last):
            if vector is None:
                yield entry
                continue
            totals = sums @ (vector / np.linalg.norm(vector) if self._relative else vector)
            of = [place[name] for name in sets[entry.owner_set or 0]]
            yield replace(entry, totals=pack_totals(totals[of]))


def asked_sum(ledger: Ledger, engine: "Engine", first: int, last: int) -> np.ndarray:
    """``Σ_q w_q q̃`` over a range, ``[D]``: its product with a passage is the passage's total.

    Raises:
        InvalidInput: See `Asked.vectors`; or nothing was asked.
    """
    total = np.zeros(engine.reader.dims)
    found = False
    for entry, vector in Asked(ledger, engine).vectors(first, last):
        if vector is not None:
            found = True
            total += (entry.weight or 0.0) * vector
    if not found:
        raise InvalidInput(
            "Nothing was asked in this period. `whence ledger show` tells what there is."
        )
    return total
