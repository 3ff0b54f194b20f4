"""What the views are drawn from: an index, a ledger, a period, and what may be shown."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from influence.errors import NotFound
from influence.store import NO_OWNER, IndexReader
from service.hidden import Hidden
from service.ledger.ledger import Ledger
from service.schemas import DocumentResult
from service.texts import Texts
from service.valuation.aliases import Aliases
from service.valuation.duplicates import Duplicate, find_duplicates
from service.valuation.periods import Period, parse_period
from service.valuation.report import valuations
from service.valuation.totals import PeriodTotals, period_totals

SLICES = 12  # of a period, at most
JACCARD, COSINE = 0.8, 0.95  # from which on documents are near-duplicates, as `whence quality` has


@dataclass(frozen=True)
class Filters:
    """What a caller wants to see; None: everything.

    Attributes:
        period: As `service.valuation.periods` reads it.
        owner: Only documents of this owner.
        source: Only documents from this source.
    """

    period: str | None = None
    owner: str | None = None
    source: str | None = None


@dataclass
class Sources:
    """An index and a ledger, either of which may be absent, under some filters.

    ``duplicates`` finds near-duplicates of an index; None: `find_as_set`.
    """

    reader: IndexReader | None
    ledger: Ledger | None
    hidden: Hidden = field(default_factory=lambda: Hidden(None, None))
    filters: Filters = field(default_factory=Filters)
    duplicates: Callable[[IndexReader], list[Duplicate]] | None = None

    @cached_property
    def index(self) -> IndexReader:
        """The index.

        Raises:
            NotFound: There is none here.
        """
        if self.reader is None:
            raise NotFound("There is no index here; workers have it. Ask a server that has one.")
        return self.reader

    @cached_property
    def book(self) -> Ledger:
        """The ledger.

        Raises:
            NotFound: There is none, or nothing is in it yet.
        """
        if self.ledger is None:
            raise NotFound("No ledger is kept here. Serve with WHENCE_LEDGER_URL.")
        if self.ledger.head().sequence == 0:
            raise NotFound("The ledger is empty. It fills with the first answer.")
        return self.ledger

    @cached_property
    def period(self) -> Period:
        """The period asked for; without one, all days of the ledger.

        Raises:
            InvalidInput: It is no period.
        """
        if self.filters.period is not None:
            return parse_period(self.filters.period)
        first = next(self.book.read(1, 1)).time_us
        last = self.book.head().time_us
        return parse_period(f"{_day(first)}..{_day(last)}")

    @cached_property
    def report(self) -> dict[str, Any]:
        """What `GET /valuations` says of the period.

        Raises:
            InvalidInput: It has no entries.
        """
        return valuations(self.book, self.period.name)

    @cached_property
    def totals(self) -> PeriodTotals:
        """Totals of the period."""
        return self.totals_within(self.period)

    def totals_within(self, period: Period) -> PeriodTotals:
        """Totals of a period; of one without entries, none."""
        first, last = self.book.range_of(period.start_us, period.end_us)
        aliases = Aliases(self.book.events("alias"), up_to=self.book.head().sequence)
        return period_totals(self.book, first, last, aliases)

    @cached_property
    def slices(self) -> tuple[Period, ...]:
        """The period in at most `SLICES` parts of whole days, in order."""
        day = 86_400_000_000
        start, end = self.period.start_us, self.period.end_us
        days = (end - start) // day
        parts = min(days, SLICES)
        edges = [start + day * (days * number // parts) for number in range(parts + 1)]
        return tuple(Period(_day(begin), begin, after) for begin, after in pairwise(edges))

    @cached_property
    def owner_of(self) -> dict[str, str | None]:
        """Owner of every document with passages, in the order of the index."""
        found: dict[str, str | None] = {}
        for row, owner in enumerate(self.index.row_owners.tolist()):
            document = self.index.passage(row).document_id
            found.setdefault(document, None if owner == NO_OWNER else owner)
        return found

    @cached_property
    def source_of(self) -> dict[str, str]:
        """Source of every document with passages."""
        found: dict[str, str] = {}
        for row, source in enumerate(self.index.row_sources.tolist()):
            found.setdefault(self.index.passage(row).document_id, source)
        return found

    def admits(self, document_id: str) -> bool:
        """Whether the filters let a document through; without an index, nothing is filtered out."""
        wanted = self.filters
        if wanted.owner is None and wanted.source is None:
            return True
        if wanted.owner is not None and self.owner_of.get(document_id) != wanted.owner:
            return False
        return wanted.source is None or self.source_of.get(document_id) == wanted.source

    @property
    def unfiltered(self) -> tuple[str, ...]:
        """What a view says that knows no filter of documents, if there is one."""
        if self.filters.owner is None and self.filters.source is None:
            return ()
        return ("Owner and source choose documents; what is shown here is over all of them.",)

    def described(self, document_id: str) -> DocumentResult | None:
        """A document as it may be shown; None: not in the index (any more)."""
        if self.reader is None:
            return None
        try:
            found = self._texts.document(document_id)
        except NotFound:
            return None
        return self.hidden.in_document(found)

    def title(self, document_id: str) -> str | None:
        """Its title, as it may be shown."""
        found = self.described(document_id)
        return None if found is None else found.title

    @cached_property
    def _texts(self) -> Texts:
        return Texts(self.index)


def find_as_set(reader: IndexReader) -> list[Duplicate]:
    """Near-duplicates at the thresholds of this module.

    Raises:
        InvalidInput: The package that finds them is not installed.
    """
    return find_duplicates(reader, jaccard=JACCARD, cosine=COSINE)


def _day(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).date().isoformat()
