"""Erasure: texts and salts go, the chain stays whole, and that it was done is itself an entry."""

import time
from collections.abc import Sequence

from sqlalchemy import delete, func, select

from influence.errors import NotFound
from service.ledger.chain import Pending, canonical
from service.ledger.ledger import Ledger
from service.ledger.schema import database_errors, entries, texts, writing

_AT_ONCE = 500  # sequences of one statement; SQLite binds at most some thousand values


def erase_before(ledger: Ledger, before_us: int) -> int:
    """Erase what was recorded before a time.

    Returns:
        How many texts or salts are gone.

    Raises:
        LedgerUnavailable: The database cannot be written.
    """
    with database_errors(ledger.engine.url), writing(ledger.engine) as connection:
        last = connection.scalar(
            select(entries.c.sequence)
            .where(entries.c.time_us < before_us)
            .order_by(entries.c.time_us.desc(), entries.c.sequence.desc())
            .limit(1)
        )
        old = texts.c.sequence <= (last or 0)
        erased = connection.scalar(select(func.count()).select_from(texts).where(old)) or 0
        connection.execute(delete(texts).where(old))
    return _note(ledger, erased, {"before_us": before_us})


def erase_requests(ledger: Ledger, request_ids: Sequence[str]) -> int:
    """Erase what stands under some request ids, every query that was asked under them.

    Returns:
        How many texts or salts are gone.

    Raises:
        NotFound: A request id that the ledger does not have.
        LedgerUnavailable: The database cannot be written.
    """
    sequences: list[int] = []
    for request_id in request_ids:
        found = [entry.sequence for entry in ledger.of_request(request_id)]
        if not found:
            raise NotFound(
                f"The ledger has no request {request_id!r}. `whence ledger show` names those it "
                "has. Nothing was erased."
            )
        sequences += found
    erased = 0
    with database_errors(ledger.engine.url), writing(ledger.engine) as connection:
        for start in range(0, len(sequences), _AT_ONCE):
            part = texts.c.sequence.in_(sequences[start : start + _AT_ONCE])
            erased += connection.scalar(select(func.count()).select_from(texts).where(part)) or 0
            connection.execute(delete(texts).where(part))
    return _note(ledger, erased, {"entries": sequences})


def _note(ledger: Ledger, erased: int, what: dict[str, object]) -> int:
    if erased:
        now = time.time_ns()
        said = canonical({**what, "erased": erased})
        ledger.append([Pending("erasure", f"erasure:{now}", now // 1000, said)])
        ledger.forget_deleted()
    return erased
