"""The ledger: append to the chain, read it in order.

What comes in has a key. It may come twice, after a crash or because a caller asked again under the
same request id, and is written once: a key that is there already with the same content is the same
entry. The same request id over *another* query is another entry, under the key with ``~2`` behind
it, so nobody can have a hundred answers for the price of one by never changing the id.

The time of an entry is when it happened, but never before that of the entry it stands on: where a
clock goes back, the chain's does not, and every period is one unbroken range of the chain.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, insert, select, update

from service.ledger.chain import Entry, Pending, commitment, entry_hash
from service.ledger.schema import database_errors, entries, head, open_database, texts, writing

PAGE = 2_000  # entries read at once
_KEYS_ASKED = 500  # SQLite binds at most some thousand values


@dataclass(frozen=True)
class Head:
    """The newest entry; sequence 0 is a ledger without any."""

    sequence: int
    time_us: int
    hash: bytes


class Ledger:
    """A chain in a database.

    Args:
        url: Of PostgreSQL, or the path of a SQLite file.
        create: Whether a SQLite file that is not there is made.

    Raises:
        InvalidInput: No URL of a ledger.
        LedgerUnavailable: It cannot be reached, is not there, or is of a newer version.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.engine: Engine = open_database(url, create=create)

    def close(self) -> None:
        """Close its connections."""
        self.engine.dispose()

    def append(self, pending: Sequence[Pending]) -> int:
        """Append what is not there yet, all of it or nothing; on the disk when this returns.

        Totals must have their owners before them, in the ledger or in ``pending``.

        Returns:
            How many entries were new.

        Raises:
            LedgerUnavailable: The database does not take them.
        """
        with database_errors(self.engine.url), writing(self.engine) as connection:
            locked = connection.execute(select(head).with_for_update()).one()
            batch = _Batch(connection, Head(locked.sequence, locked.time_us, locked.hash), pending)
            for one in pending:
                batch.add(one)
            return batch.write()

    def head(self) -> Head:
        """The newest entry.

        Raises:
            LedgerUnavailable: The database cannot be read.
        """
        with database_errors(self.engine.url), self.engine.connect() as connection:
            row = connection.execute(select(head)).one()
            return Head(row.sequence, row.time_us, row.hash)

    def read(self, first: int = 1, last: int | None = None) -> Iterator[Entry]:
        """Entries in the order of the chain, both ends included, some thousand at a time.

        Raises:
            LedgerUnavailable: The database cannot be read.
        """
        end = self.head().sequence if last is None else last
        for start in range(first, end + 1, PAGE):
            until = min(start + PAGE - 1, end)
            yield from self._entries(entries.c.sequence.between(start, until))

    def texts(self, first: int, last: int) -> dict[int, str]:
        """Texts that were kept and are not erased, by the sequence of their entry.

        Raises:
            LedgerUnavailable: The database cannot be read.
        """
        query = select(texts.c.sequence, texts.c.text).where(
            texts.c.sequence.between(first, last) & texts.c.text.is_not(None)
        )
        with database_errors(self.engine.url), self.engine.connect() as connection:
            return {row.sequence: row.text for row in connection.execute(query)}

    def events(self, *kinds: str) -> list[Entry]:
        """All entries of some kinds other than attributions, in the order of the chain."""
        return self._entries((entries.c.kind != "attribution") & entries.c.kind.in_(kinds))

    def entry(self, key: str) -> Entry | None:
        """The entry of a key."""
        return next(iter(self._entries(entries.c.key == key)), None)

    def of_request(self, request_id: str) -> list[Entry]:
        """The entries of a request id: one for each query that was asked under it."""
        found: list[Entry] = []
        while entry := self.entry(numbered_key(f"request:{request_id}", len(found) + 1)):
            found.append(entry)
        return found

    def forget_deleted(self) -> None:
        """Empty SQLite's journal, which still holds pages as they were before a deletion."""
        if self.engine.dialect.name == "sqlite":
            with database_errors(self.engine.url), self.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def range_of(self, start_us: int, end_us: int) -> tuple[int, int]:
        """First and last sequence of the entries with ``start_us <= time < end_us``.

        Times never fall along the chain, so they are one range; an empty one ends before it begins.
        """
        newest = (
            select(entries.c.sequence)
            .order_by(entries.c.time_us.desc(), entries.c.sequence.desc())
            .limit(1)
        )
        with database_errors(self.engine.url), self.engine.connect() as connection:
            before = connection.scalar(newest.where(entries.c.time_us < start_us)) or 0
            last = connection.scalar(newest.where(entries.c.time_us < end_us)) or 0
        return before + 1, last

    def _entries(self, condition: ColumnElement[bool]) -> list[Entry]:
        query = select(entries).where(condition).order_by(entries.c.sequence)
        with database_errors(self.engine.url), self.engine.connect() as connection:
            return [Entry(*row) for row in connection.execute(query)]


class _Batch:
    """Entries that will be appended together."""

    def __init__(self, connection: Connection, start: Head, pending: Sequence[Pending]) -> None:
        self._connection = connection
        self._start = self._end = start
        self._entries: list[dict[str, Any]] = []
        self._texts: list[dict[str, Any]] = []
        self._taken = self._stored_keys([one.key for one in pending])
        self._owner_sets: dict[str, int] = {}

    def add(self, one: Pending) -> None:
        key, number = one.key, 1
        while (there := self._taken.get(key)) is not None:
            if self._same(there, one):
                return
            number += 1
            key = numbered_key(one.key, number)
            if key not in self._taken:
                self._taken |= self._stored_keys([key])
        sequence = self._end.sequence + 1
        time_us = max(one.time_us, self._end.time_us)
        owner_set = None if one.owners is None else self._owner_set(one.owners)
        said = (sequence, one.kind, key, time_us, one.body, one.weight, owner_set, one.totals)
        digest = entry_hash(self._end.hash, *said)
        names = ("sequence", "kind", "key", "time_us", "body", "weight", "owner_set", "totals")
        self._entries.append(dict(zip(names, said, strict=True), hash=digest))
        if one.salt is not None:
            self._texts.append({"sequence": sequence, "salt": one.salt, "text": one.text})
        self._taken[key] = (sequence, one.body)
        self._end = Head(sequence, time_us, digest)

    def write(self) -> int:
        if self._entries:
            self._connection.execute(insert(entries), self._entries)
            if self._texts:
                self._connection.execute(insert(texts), self._texts)
            end = self._end
            self._connection.execute(
                update(head).values(sequence=end.sequence, time_us=end.time_us, hash=end.hash)
            )
        return len(self._entries)

    def _same(self, there: tuple[int, str], one: Pending) -> bool:
        """Whether the entry is this one, delivered again, or the same query, asked again."""
        sequence, body = there
        if body == one.body or one.kind != "attribution":
            return True
        salt = self._connection.scalar(select(texts.c.salt).where(texts.c.sequence == sequence))
        if salt is None:
            salt = next((t["salt"] for t in self._texts if t["sequence"] == sequence), None)
        if salt is None or one.text_sha256 is None:  # erased meanwhile: nobody can tell any more
            return False
        return json.loads(body)["query"] == commitment(salt, one.text_sha256)

    def _stored_keys(self, keys: Sequence[str]) -> dict[str, tuple[int, str]]:
        found: dict[str, tuple[int, str]] = {}
        for start in range(0, len(keys), _KEYS_ASKED):
            part = keys[start : start + _KEYS_ASKED]
            query = select(entries.c.key, entries.c.sequence, entries.c.body)
            rows = self._connection.execute(query.where(entries.c.key.in_(part)))
            found |= {key: (sequence, body) for key, sequence, body in rows}
        return found

    def _owner_set(self, digest: str) -> int:
        if digest not in self._owner_sets:
            key = owners_key(digest)
            stored = self._taken.get(key) or self._stored_keys([key]).get(key)
            if stored is None:
                raise ValueError(f"the owners {digest} are not in the ledger; append them first.")
            self._owner_sets[digest] = stored[0]
        return self._owner_sets[digest]


def owners_key(digest: str) -> str:
    """Key of the entry that names the owners of an index version."""
    return f"owners:{digest}"


def numbered_key(key: str, number: int) -> str:
    """Key of the ``number``-th entry of one request id."""
    return key if number == 1 else f"{key}~{number}"
