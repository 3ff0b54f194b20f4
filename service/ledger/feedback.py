"""What people thought of a document beside an answer: thumbs up or down, beside the chain.

An opinion is no part of the chain: it pays nobody, and whoever gave it may change it. There is one
for each key, request and passage; the newest holds, and the same one sent again changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, insert, select

from service.ledger.ledger import Ledger
from service.ledger.schema import database_errors, feedback, writing

Verdict = Literal["up", "down"]


@dataclass(frozen=True)
class Opinion:
    """What somebody thought of a document beside an answer.

    Attributes:
        caller: Id of the API key.
        request_id: Of the attribution.
        document_id: What it is about.
        passage_id: The passage of it that was shown; empty: the whole document.
        verdict: Whether it is rightly there.
        note: In words; may be empty.
        time_us: When, microseconds since 1970 (UTC).
    """

    caller: str
    request_id: str
    document_id: str
    passage_id: str
    verdict: Verdict
    note: str
    time_us: int


def give(ledger: Ledger, opinion: Opinion) -> None:
    """Keep an opinion in the place of an earlier one of the same key, request and passage.

    Raises:
        LedgerUnavailable: The database does not take it.
    """
    key = (feedback.c.caller, feedback.c.request_id, feedback.c.document_id, feedback.c.passage_id)
    same = [column == getattr(opinion, column.name) for column in key]
    with database_errors(ledger.engine.url), writing(ledger.engine) as connection:
        connection.execute(delete(feedback).where(*same))
        connection.execute(insert(feedback).values(**vars(opinion)))


def given(ledger: Ledger, start_us: int, end_us: int) -> Sequence[Opinion]:
    """Opinions with ``start_us <= time < end_us``, the newest first.

    Raises:
        LedgerUnavailable: The database cannot be read.
    """
    within = (feedback.c.time_us >= start_us) & (feedback.c.time_us < end_us)
    newest_first = (feedback.c.time_us.desc(), feedback.c.request_id, feedback.c.passage_id)
    with database_errors(ledger.engine.url), ledger.engine.connect() as connection:
        rows = connection.execute(select(feedback).where(within).order_by(*newest_first))
        return [Opinion(**row._mapping) for row in rows]
