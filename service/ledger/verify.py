"""Does the chain hold? Every hash is computed again, from the first entry to the head.

What this finds: an entry that was changed, taken out, put in or moved, wherever it is; texts that
are not those that were asked; a tail that was cut off while the head stayed. A tail cut off
together with the head is found by whoever knows a hash of it, which is why every statement of
payouts carries one.
"""

import json
from dataclasses import dataclass

from sqlalchemy import select

from influence.errors import LedgerBroken
from service.ledger.chain import (
    GENESIS,
    Entry,
    canonical,
    commitment,
    entry_hash,
    sha256_of,
    unpack_totals,
)
from service.ledger.ledger import PAGE, Ledger
from service.ledger.schema import database_errors, entries, texts

_RESTORE = "Restore the ledger from a backup; statements name the hashes that it must have."


@dataclass(frozen=True)
class Verified:
    """What was found to hold.

    Attributes:
        entries: In the chain.
        attributions: Of these.
        kept: Of these, with their salt, and their text where it was to be kept.
        erased: Of these, without.
        head: The newest hash, in hexadecimal.
    """

    entries: int
    attributions: int
    kept: int
    erased: int
    head: str


def verify_ledger(ledger: Ledger, *, expected_head: tuple[int, str] | None = None) -> Verified:
    """Compute every hash again.

    Args:
        ledger: To verify.
        expected_head: A sequence and the hash that it must have, from a statement.

    Raises:
        LedgerBroken: An entry was changed, moved or taken out; the message says which.
        LedgerUnavailable: The database cannot be read.
    """
    head = ledger.head()  # first: what is appended meanwhile is not looked at
    walk = _Walk(expected_head)
    for entry in ledger.read(1, head.sequence):
        walk.step(entry)
    if walk.sequence != head.sequence or walk.previous != head.hash:
        raise LedgerBroken(
            f"The chain ends at entry {walk.sequence}, and its head is entry {head.sequence}: "
            f"entries at the end were taken out. {_RESTORE}"
        )
    if expected_head is not None and expected_head[0] > head.sequence:
        raise LedgerBroken(
            f"The ledger ends at entry {head.sequence}, before the expected entry "
            f"{expected_head[0]}: entries at the end were taken out. {_RESTORE}"
        )
    kept = _check_texts(ledger, head.sequence)
    return Verified(
        head.sequence, walk.attributions, kept, walk.attributions - kept, head.hash.hex()
    )


class _Walk:
    """Where the verification is in the chain."""

    def __init__(self, expected_head: tuple[int, str] | None) -> None:
        self.sequence = 0
        self.previous = GENESIS
        self.attributions = 0
        self._expected = expected_head
        self._time_us = 0
        self._owners: dict[int, int] = {}  # how many each set has

    def step(self, entry: Entry) -> None:
        if entry.sequence != self.sequence + 1:
            raise LedgerBroken(
                f"Entry {self.sequence + 1} is missing: entry {self.sequence} is followed by "
                f"entry {entry.sequence}. {_RESTORE}"
            )
        said = (
            *(entry.sequence, entry.kind, entry.key, entry.time_us, entry.body, entry.weight),
            *(entry.owner_set, entry.totals),
        )
        if entry_hash(self.previous, *said) != entry.hash:
            raise LedgerBroken(
                f"Entry {entry.sequence} ({entry.key}) was changed, or is not where it was "
                f"written. {_RESTORE}"
            )
        self.sequence, self.previous = entry.sequence, entry.hash
        if self._expected is not None and self._expected[0] == entry.sequence:
            self._meets_expectation(entry, self._expected[1])
        self._makes_sense(entry)

    def _meets_expectation(self, entry: Entry, expected: str) -> None:
        if entry.hash.hex() != expected:
            raise LedgerBroken(
                f"Entry {entry.sequence} has the hash {entry.hash.hex()}, and {expected} is "
                f"expected: the chain was written anew. {_RESTORE}"
            )

    def _makes_sense(self, entry: Entry) -> None:
        """What no honest writer appends, though its hashes may be right."""
        complaint = self._complaint(entry)
        if complaint is not None:
            raise LedgerBroken(
                f"Entry {entry.sequence} ({entry.key}) is no entry of Whence: {complaint}. "
                f"{_RESTORE}"
            )
        self._time_us = entry.time_us

    def _complaint(self, entry: Entry) -> str | None:
        if entry.time_us < self._time_us:
            return "its time is before that of the entry it stands on"
        try:
            content = entry.content
            if canonical(content) != entry.body:
                return "its body is not canonical JSON"
            if entry.kind == "owners":
                self._owners[entry.sequence] = len(content["names"])
            if entry.kind == "attribution":
                self.attributions += 1
                unpack_totals(entry.totals or b"", self._owners[entry.owner_set or 0])
        except ValueError as error:
            return str(error)
        except KeyError as error:
            return f"it lacks {error}"
        return None


def _check_texts(ledger: Ledger, last: int) -> int:
    """Compare what is kept with what the chain committed to; how many salts are kept."""
    beside = texts.join(entries, entries.c.sequence == texts.c.sequence)
    query = select(texts, entries.c.body).select_from(beside).order_by(texts.c.sequence)
    kept = 0
    with database_errors(ledger.engine.url), ledger.engine.connect() as connection:
        for start in range(1, last + 1, PAGE):
            page = texts.c.sequence.between(start, min(start + PAGE - 1, last))
            for row in connection.execute(query.where(page)).all():
                kept += 1
                committed = json.loads(row.body)["query"]
                if row.text is not None and not _is_committed_to(committed, row.salt, row.text):
                    raise LedgerBroken(
                        f"The text beside entry {row.sequence} is not the one that was asked. "
                        f"{_RESTORE}"
                    )
    return kept


def _is_committed_to(committed: str, salt: bytes, text: str) -> bool:
    return text.isascii() and committed == commitment(salt, sha256_of(text))
