"""Attribution by another server: the engine is on another host, and this one is in front of it.

For a query model that needs machines of its own. This server has the keys, rates, cache, ledger and
pages; the other one answers `POST /attribute` as it does for anybody, and what it refuses is
refused here in its own words. It holds no torch and no index.
"""

import asyncio
import logging
from inspect import isclass

from influence import errors
from influence.errors import AttributionError, NotReady
from service.attributor import Serving
from service.jobs import error_from_wire
from service.schemas import (
    AttributeRequest,
    AttributeResult,
    DocumentResult,
    IndexReference,
    ServiceInfo,
)
from whence_client import AsyncClient, ServerUnreachable, WhenceProblem, calls
from whence_client.calls import Call, Result

log = logging.getLogger(__name__)

_LOOK_S = 1.0  # how often the other server is asked what it serves
_RETRY_S = 5
_MEMORY_OF_TIME = 0.2  # weight of the newest answer in the measured seconds a request
# It is this server's key that they are about, not that of whoever asks.
_OURS_TO_MEND = frozenset({"unauthenticated", "forbidden", "keys-unavailable", "rate-limited"})


class UpstreamAttributor:
    """Passes requests on (`service.attributor.Attributor`).

    Args:
        url: Of the other server.
        key: For it; None where it runs without.
        timeout_s: After which it is given up; callers are no more patient than that.
    """

    def __init__(self, url: str, *, key: str | None, timeout_s: float) -> None:
        self._url = url
        self._client = AsyncClient(url, key=key, timeout_s=timeout_s, retry=False)
        self._info: ServiceInfo | None = None
        self._seen = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._accepted: set[asyncio.Task[AttributeResult]] = set()
        self._closing = False
        self.seconds_per_request = 1.0

    @property
    def ready(self) -> bool:
        """The other server is ready, and nothing drains here."""
        return self._info is not None and not self._closing

    @property
    def serving(self) -> Serving:
        """See `service.attributor.Attributor`; an index's version names its model and tokenizer."""
        info = self._told()
        index = IndexReference.model_validate(
            info.index.model_dump(include=set(IndexReference.model_fields))
        )
        return Serving(
            index=index,
            weights_sha256=f"those of {self._url}",
            tokenizer_sha256=f"that of {self._url}",
            dtype=info.dtype,
            program=info.version,
        )

    def check_room(self) -> None:
        """See `service.attributor.Attributor`; the other server says so when it is asked."""

    async def start(self) -> None:
        """Begin to look for the other server; returns at once."""
        self._looking = asyncio.create_task(self._look())

    async def wait_loaded(self) -> ServiceInfo:
        """Wait until it is there."""
        await self._seen.wait()
        return await self.info()

    async def close(self) -> None:
        """Refuse new requests, wait for the answers of those accepted, disconnect."""
        self._closing = True
        await asyncio.gather(*self._accepted, return_exceptions=True)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._client.close()

    async def check_ready(self) -> None:
        """Return if ready, else raise why not."""
        self._told()

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """See `service.attributor.Attributor`; a caller who leaves here has left there as well."""
        self._told()
        headers = {"X-Request-Id": request_id}
        call = Call("POST", "/attribute", AttributeResult, request, headers=headers)
        asking = asyncio.ensure_future(self._ask(call))
        self._accepted.add(asking)
        asking.add_done_callback(self._accepted.discard)
        try:
            found = await asking
        finally:
            asking.cancel()
        timings = found.timings_ms
        took_s = (timings.gradient + timings.search + timings.fetch) / 1e3
        self.seconds_per_request += _MEMORY_OF_TIME * (took_s - self.seconds_per_request)
        return found

    async def document(self, document_id: str) -> DocumentResult:
        """See `service.attributor.Attributor`."""
        self._told()
        return await self._ask(calls.document(document_id))

    async def info(self) -> ServiceInfo:
        """See `service.attributor.Attributor`."""
        return self._told()

    def _told(self) -> ServiceInfo:
        if self._closing:
            raise NotReady("The server is shutting down. Ask another one.")
        if self._info is None:
            raise self._absent()
        return self._info

    def _absent(self) -> NotReady:
        return NotReady(
            "The engine, which is on another host, does not answer. /readyz says when it does.",
            retry_after_s=_RETRY_S,
        )

    async def _ask(self, call: Call[Result]) -> Result:
        try:
            return await self._client.call(call)
        except ServerUnreachable as error:
            raise self._absent() from error
        except WhenceProblem as error:
            if error.kind in _OURS_TO_MEND:
                log.warning("the engine at %s refuses this server: %s", self._url, error)
                raise self._absent() from error
            raise _as_ours(error) from error

    async def _look(self) -> None:
        """Ask what is served, again and again: it changes when the other server swaps its index."""
        warned = False
        while True:
            try:
                self._info = await self._client.info()
                self._seen.set()
                warned = False
            except (ServerUnreachable, WhenceProblem) as error:
                self._info = None
                if not warned:
                    log.warning("the engine at %s does not answer: %s", self._url, error)
                warned = True
            await asyncio.sleep(_LOOK_S)


def _as_ours(error: WhenceProblem) -> AttributionError:
    """`query-too-long` of the other server as `QueryTooLong` here."""
    kind = "".join(word.capitalize() for word in error.kind.split("-"))
    known = isclass(getattr(errors, kind, None))
    if not known:  # a proxy's own words, or those of another version
        kind = "InvalidInput" if error.problem.status < 500 else "NotReady"
    message, wait_s = error.problem.detail, error.retry_after_s
    return error_from_wire({"kind": kind, "message": message, "retry_after_s": wait_s})
