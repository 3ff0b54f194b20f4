"""An attributor whose answers are in the ledger before they leave.

It wraps any `service.attributor.Attributor`: the engine of this process, or workers behind a queue.
Importing this module loads neither torch nor faiss.
"""

import asyncio
import os
import random
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from influence.errors import InvalidInput
from service.attributor import Answers
from service.ledger.ledger import Ledger
from service.ledger.record import attribution_entry, owners_of
from service.ledger.recorder import Recorder
from service.ledger.schema import ledger_url
from service.schemas import AttributeRequest, AttributeResult, DocumentResult, ServiceInfo
from service.settings import Settings


@dataclass(frozen=True)
class Recording:
    """Which answers count, and what is kept of them.

    Attributes:
        recorder: Takes the entries.
        policy: all; sampled: each with a probability, and its weight over it; billable: those
            whose request says so.
        probability: With which an answer is recorded; 1 unless sampled.
        keep_texts: Whether prompts and responses may be kept.
    """

    recorder: Recorder
    policy: str = "all"
    probability: float = 1.0
    keep_texts: bool = False

    @cached_property
    def ledger(self) -> Ledger:
        """For reading.

        Raises:
            LedgerUnavailable: The database cannot be reached.
        """
        return Ledger(self.recorder.url, create=True)

    def close(self) -> None:
        """Deliver what the database takes; the rest stays in the spool."""
        self.recorder.close()
        if "ledger" in self.__dict__:
            self.ledger.close()

    def counts(self, request: AttributeRequest) -> bool:
        """Whether an answer is recorded; of the policy sampled, by lot."""
        if self.policy == "billable":
            return request.usage is not None and request.usage.billable
        return self.policy == "all" or random.random() < self.probability


def open_recording(settings: Settings) -> Recording | None:
    """What the settings say; None where they name no ledger.

    Raises:
        InvalidInput: No URL of a ledger, or PostgreSQL without a folder for the spool.
        StorageFull: The spool cannot be written.
    """
    if settings.ledger_url is None:
        return None
    url = ledger_url(settings.ledger_url)
    spool = settings.ledger_spool_dir
    if spool is None:
        if url.get_backend_name() != "sqlite":
            raise InvalidInput(
                "Answers are acknowledged from a folder of this machine, and none is named. Set "
                "WHENCE_LEDGER_SPOOL_DIR to one that outlives the process."
            )
        spool = Path(f"{url.database}.spool")
    return Recording(
        Recorder(settings.ledger_url, spool),
        settings.ledger_policy,
        settings.ledger_sample if settings.ledger_policy == "sampled" else 1.0,
        settings.ledger_texts,
    )


class Recorded:
    """An attributor as one caller sees it; what it answers is recorded under that caller.

    Args:
        attributor: Answers.
        recording: What is recorded.
        caller: Id of the API key.
    """

    def __init__(self, attributor: Answers, recording: Recording, caller: str | None) -> None:
        self._attributor = attributor
        self._recording = recording
        self._caller = caller

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """See `service.attributor.Attributor`.

        Raises:
            StorageFull: The entry cannot be written, so the answer does not leave.
        """
        # What it counts for changes nothing of the answer, nor whether one like it is kept.
        asked = request.model_copy(update={"usage": None})
        result = await self._attributor.attribute(asked, request_id=request_id)
        if not self._recording.counts(request):
            return result
        owners, names = owners_of(result, time_us=time.time_ns() // 1000)
        entry = attribution_entry(
            request,
            result,
            owners,
            names,
            caller=self._caller,
            usage=result.query.tokens if request.usage is None else request.usage.weight,
            probability=self._recording.probability,
            policy=self._recording.policy,
            keep_text=self._recording.keep_texts,
            salt=os.urandom(16),
            time_us=time.time_ns() // 1000,
        )
        # Shielded: once it is on its way to the disk it counts, whether or not the caller stays.
        await asyncio.shield(asyncio.wrap_future(self._recording.recorder.record(entry, owners)))
        return result

    async def document(self, document_id: str) -> DocumentResult:
        """See `service.attributor.Attributor`."""
        return await self._attributor.document(document_id)

    async def info(self) -> ServiceInfo:
        """See `service.attributor.Attributor`."""
        return await self._attributor.info()
