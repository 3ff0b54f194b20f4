"""Recording off the request's path: acknowledge from the spool, deliver to the database behind it.

An answer is *acknowledged* when `record` has returned, which is when its entry is flushed to the
disk of this machine; only then does the answer leave. Requests that come together share one flush.
A thread carries the spool to the database in batches; while the database is away it keeps trying
and answers go on, until the spool's disk is full: then `record` fails and no answer leaves.
"""

import logging
import threading
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

from influence.errors import AttributionError, LedgerUnavailable
from service.ledger.chain import Pending
from service.ledger.ledger import Ledger
from service.ledger.record import from_line, to_line
from service.ledger.schema import ledger_url
from service.ledger.spool import Spool, SpoolFile

log = logging.getLogger(__name__)

BATCH_ENTRIES = 500  # of one transaction
_PAUSE_S = 0.2  # between deliveries, so that entries gather
_RETRY_S = 5.0


class Recorder:
    """Takes entries and sees to it that each is in the ledger once.

    Args:
        url: Of the ledger.
        spool: Folder on a disk of this machine.

    Raises:
        InvalidInput: No URL of a ledger.
        StorageFull: The spool cannot be written.
    """

    def __init__(self, url: str, spool: Path) -> None:
        ledger_url(url)
        self.url = url
        self._spool = Spool(spool)
        self._files_changing = threading.Lock()
        self._waiting: SimpleQueue[tuple[list[Pending], Future[None]] | None] = SimpleQueue()
        self._known: tuple[SpoolFile | None, set[str]] = (None, set())
        self._closing = threading.Event()
        self._work = threading.Event()
        self._flusher = threading.Thread(target=self._flush, name="ledger-spool", daemon=True)
        self._deliverer = threading.Thread(target=self._deliver, name="ledger", daemon=True)
        self._flusher.start()
        self._deliverer.start()

    def record(self, entry: Pending, owners: Pending) -> "Future[None]":
        """Acknowledge an attribution; done when it can no longer be lost.

        The future raises `StorageFull` where the spool cannot be written.
        """
        done: Future[None] = Future()
        self._waiting.put(([owners, entry], done))
        return done

    def close(self) -> None:
        """Deliver what is there, as far as the database takes it; the rest stays in the spool."""
        self._waiting.put(None)
        self._flusher.join()
        self._closing.set()
        self._work.set()
        self._deliverer.join()

    def _flush(self) -> None:
        running = True
        while running:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            running = None not in batch
            asked = [one for one in batch if one is not None]
            if not asked:
                continue
            try:
                with self._files_changing:
                    lines, known = self._lines([one for many, _ in asked for one in many])
                    self._spool.append(lines)
                    self._known = known  # not before: on a full disk they are not there
            except AttributionError as error:
                for _, done in asked:
                    done.set_exception(error)
                continue
            for _, done in asked:
                done.set_result(None)
            self._work.set()

    def _lines(self, pending: list[Pending]) -> tuple[list[bytes], tuple[SpoolFile, set[str]]]:
        """Their lines, and what is known once they are in the file.

        Owners stand once in every file, which is then complete by itself.
        """
        file, known = self._known
        current = self._spool.current
        known = set(known) if file is current else set()
        fresh: list[Pending] = []
        for one in pending:
            if one.kind != "owners" or one.key not in known:
                fresh.append(one)
                known.add(one.key)
        return [to_line(one) for one in fresh], (current, known)

    def _deliver(self) -> None:
        ledger: Ledger | None = None
        while True:
            closing = self._closing.is_set()  # asked before, so that the last ones are seen
            try:
                ledger = ledger or Ledger(self.url, create=True)
                while self._deliver_some(ledger):
                    pass
                away = False
            except LedgerUnavailable as error:
                log.warning("entries wait in the spool: %s", error)
                away = True
            if closing:
                break
            if away:
                self._closing.wait(_RETRY_S)
            else:
                self._work.wait()
                self._work.clear()
                self._closing.wait(_PAUSE_S)
        if ledger is not None:
            ledger.close()
        self._spool.close()

    def _deliver_some(self, ledger: Ledger) -> bool:
        """One batch of the oldest file; whether there may be more."""
        with self._files_changing:
            file = self._spool.files[0] if self._spool.files else None
        if file is None:
            return False
        lines, offset = file.undelivered(BATCH_ENTRIES)
        if lines:
            ledger.append([from_line(line) for line in lines])
        with self._files_changing:
            # Also the file that is being written, so that no text stays here longer than it must.
            if file.delivered(offset):
                self._spool.retire(file)
        return True
