"""Owners that were renamed or merged: entries of the ledger, applied in their order.

An alias says that from a moment on what is recorded under one name belongs to another. The moment
is the beginning of time for a rename, and a date for a sale: what was recorded before it stays with
the old owner. Nothing is rewritten; totals keep the names they were recorded under, and are read
through the aliases that stood in the ledger up to an entry.
"""

import time

from influence.errors import InvalidInput, NotFound
from service.ledger.chain import Entry, Pending, canonical
from service.ledger.ledger import Ledger


class Aliases:
    """The aliases of a ledger up to an entry."""

    def __init__(self, events: list[Entry], *, up_to: int) -> None:
        self._said = [
            (said["since_us"], said["owner"], said["becomes"])
            for said in (event.content for event in events if event.sequence <= up_to)
        ]
        self.moments = sorted({since for since, _, _ in self._said})

    def owner(self, name: str, time_us: int) -> str:
        """Who owns at a moment what is recorded under a name."""
        for since_us, old, new in self._said:
            if name == old and time_us >= since_us:
                name = new
        return name

    def epoch(self, time_us: int) -> int:
        """Within one epoch every name belongs to one owner."""
        return sum(1 for moment in self.moments if moment <= time_us)


def known_owners(ledger: Ledger) -> set[str]:
    """Every name that totals or aliases of the ledger have."""
    names = {name for entry in ledger.events("owners") for name in entry.content["names"]}
    return names | {entry.content["becomes"] for entry in ledger.events("alias")}


def add_alias(ledger: Ledger, owner: str, becomes: str, *, since_us: int = 0) -> None:
    """Let what is recorded under ``owner`` belong to ``becomes``, from a moment on.

    Raises:
        NotFound: Nothing was ever recorded under this name.
        InvalidInput: The two are the same name.
        LedgerUnavailable: The database cannot be written.
    """
    if owner == becomes or not becomes:
        raise InvalidInput(f"{owner!r} cannot become {becomes!r}. Give two different names.")
    if owner not in known_owners(ledger):
        raise NotFound(
            f"The ledger knows no owner {owner!r}. `whence valuations` names those it knows."
        )
    now = time.time_ns()
    said = canonical({"owner": owner, "becomes": becomes, "since_us": since_us})
    ledger.append([Pending("alias", f"alias:{now}", now // 1000, said)])
