"""The views by name, over the index and the ledger of a server as they stand."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from influence.errors import InvalidInput
from influence.store import IndexReader
from influence.transfer import local_index
from service.dashboard.answers import answers_view
from service.dashboard.documents import documents_view
from service.dashboard.one import document_view, owner_view
from service.dashboard.owners import owners_view
from service.dashboard.quality import quality_view
from service.dashboard.sources import Filters, Sources, find_as_set
from service.dashboard.view import View
from service.hidden import Hidden
from service.ledger.ledger import Ledger
from service.valuation.duplicates import Duplicate
from service.versions import current_at

ViewName = Literal["owners", "documents", "answers", "quality", "document", "owner"]


class Dashboard:
    """Draws views; for several threads, one at a time.

    Args:
        location: Folder or URL of the index; None: there is none here.
        ledger: Gives the ledger when it is wanted; None: there is none.
        hidden: What is withheld.
    """

    def __init__(
        self, location: Path | str | None, ledger: Callable[[], Ledger] | None, hidden: Hidden
    ) -> None:
        self._location = location
        self._ledger = ledger
        self._hidden = hidden
        self._one_at_a_time = threading.Lock()  # a Parquet reader is not for two threads at once
        self._reader: IndexReader | None = None
        self._duplicates: tuple[str, list[Duplicate]] | None = None  # of a version

    def view(self, name: ViewName, filters: Filters, *, subject: str | None = None) -> View:
        """A view as things stand.

        Args:
            name: Which.
            filters: What to draw it from.
            subject: Of ``document`` and ``owner``: which one.

        Raises:
            InvalidInput: No period, or one without entries; a subject is missing.
            NotFound: What it is drawn from is not here.
            IndexUnavailable: The index cannot be read.
            LedgerUnavailable: The ledger cannot be read.
        """
        with self._one_at_a_time:
            reader = self._current_reader()
            ledger = None if self._ledger is None else self._ledger()
            sources = Sources(reader, ledger, self._hidden, filters, self._known_duplicates)
            return draw(name, sources, subject)

    def _known_duplicates(self, reader: IndexReader) -> list[Duplicate]:
        """Found once for each version, since it takes long."""
        if self._duplicates is None or self._duplicates[0] != reader.version:
            self._duplicates = (reader.version, find_as_set(reader))
        return self._duplicates[1]

    def close(self) -> None:
        """Let the index be cleared away."""
        with self._one_at_a_time:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _current_reader(self) -> IndexReader | None:
        if self._location is None:
            return None
        if self._reader is None or self._reader.version != current_at(self._location):
            fresh = IndexReader.open(local_index(self._location))
            if self._reader is not None:
                self._reader.close()
            self._reader = fresh
        return self._reader


def draw(name: ViewName, sources: Sources, subject: str | None = None) -> View:
    """A view from its sources; raises as `Dashboard.view`."""
    if name in ("document", "owner"):
        if not subject:
            raise InvalidInput(f"It is not said which {name} is meant. Name it as id.")
        if name == "document":
            return document_view(sources, subject)
        return owner_view(
            replace(sources, filters=replace(sources.filters, owner=subject)), subject
        )
    return {
        "owners": owners_view,
        "documents": documents_view,
        "answers": answers_view,
        "quality": quality_view,
    }[name](sources)
