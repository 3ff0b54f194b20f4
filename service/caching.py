"""An attributor that computes nothing twice: answers are kept, and equal questions that are asked
at the same time share one computation.

Importing this module loads neither torch nor faiss.
"""

import asyncio
from dataclasses import dataclass

from service.attributor import Attributor, Serving
from service.cache import Cache, answer_key
from service.schemas import (
    AttributeRequest,
    AttributeResult,
    DocumentResult,
    ServiceInfo,
    Timings,
)

_NO_TIME = Timings(queue=0.0, gradient=0.0, search=0.0, fetch=0.0)


@dataclass(eq=False)
class _Flight:
    """A computation under way, and how many wait for it."""

    task: "asyncio.Task[AttributeResult]"
    waiting: int = 0


class CachingAttributor:
    """Another attributor behind a cache (`service.attributor.Attributor`).

    Args:
        attributor: Computes what is not there.
        cache: Keeps what was computed.
    """

    def __init__(self, attributor: Attributor, cache: Cache) -> None:
        self._attributor = attributor
        self._cache = cache
        self._flights: dict[str, _Flight] = {}

    @property
    def ready(self) -> bool:
        """See `service.attributor.Attributor`."""
        return self._attributor.ready

    @property
    def serving(self) -> Serving:
        """See `service.attributor.Attributor`."""
        return self._attributor.serving

    @property
    def seconds_per_request(self) -> float:
        """See `service.attributor.Attributor`."""
        return self._attributor.seconds_per_request

    def check_room(self) -> None:
        """See `service.attributor.Attributor`; what is in the cache needs none."""
        self._attributor.check_room()

    async def start(self) -> None:
        """See `service.attributor.Attributor`."""
        await self._attributor.start()

    async def wait_loaded(self) -> ServiceInfo:
        """See `service.attributor.Attributor`."""
        return await self._attributor.wait_loaded()

    async def close(self) -> None:
        """See `service.attributor.Attributor`."""
        await self._attributor.close()
        await self._cache.close()

    async def check_ready(self) -> None:
        """See `service.attributor.Attributor`."""
        await self._attributor.check_ready()

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """See `service.attributor.Attributor`; computed once for all who ask the same at once."""
        serving = self._attributor.serving
        key = answer_key(serving, request)
        kept = await self._cache.get(key)
        if kept is not None:
            found = AttributeResult.model_validate_json(kept)
            return found.model_copy(
                update={"request_id": request_id, "timings_ms": _NO_TIME, "cached": True}
            )
        flight = self._flights.get(key)
        first = flight is None
        if flight is None:
            work = self._compute(key, serving, request, request_id)
            flight = self._flights[key] = _Flight(asyncio.create_task(work))
            flight.task.add_done_callback(lambda _: self._land(key))
        result = await _wait_for(flight)
        return (
            result
            if first
            else result.model_copy(update={"request_id": request_id, "cached": True})
        )

    async def _compute(
        self, key: str, serving: Serving, request: AttributeRequest, request_id: str
    ) -> AttributeResult:
        result = await self._attributor.attribute(request, request_id=request_id)
        # Where the index was swapped meanwhile, the answer is another's than the key says.
        if result.index == serving.index:
            await self._cache.put(key, result.model_dump_json().encode())
        return result

    def _land(self, key: str) -> None:
        del self._flights[key]

    async def document(self, document_id: str) -> DocumentResult:
        """See `service.attributor.Attributor`."""
        return await self._attributor.document(document_id)

    async def info(self) -> ServiceInfo:
        """See `service.attributor.Attributor`."""
        return await self._attributor.info()


async def _wait_for(flight: _Flight) -> AttributeResult:
    """The answer; the computation is cancelled when the last who waits has left."""
    flight.waiting += 1
    try:
        return await asyncio.shield(flight.task)
    except asyncio.CancelledError:
        if flight.waiting == 1:
            flight.task.cancel()
        raise
    finally:
        flight.waiting -= 1
