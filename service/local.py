"""The engine in this process: one worker thread, off the event loop, behind a bounded queue.

The model computes one query at a time, so one thread is as fast as many, and answers do not depend
on what else is being asked. Importing this module loads neither torch nor faiss: the function that
loads the engine does, in the worker.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from influence.errors import AttributionError, NotReady, Overloaded
from service.schemas import AttributeRequest, AttributeResult, DocumentResult, ServiceInfo

if TYPE_CHECKING:
    from service.engine import Engine

log = logging.getLogger(__name__)

_MEMORY_OF_RATE = 0.2  # weight of the newest request in the mean duration
_LOADING_RETRY_S = 5


class LocalAttributor:
    """Runs an engine in a thread (`service.attributor.Attributor`).

    Args:
        load: Makes the engine, warm; called once, in the worker thread.
        queue_size: Requests that may wait besides the one that is computed.
    """

    def __init__(self, load: "Callable[[], Engine]", *, queue_size: int) -> None:
        self._load = load
        self._queue_size = queue_size
        self._places = threading.BoundedSemaphore(queue_size + 1)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="documents")
        self._engine: Engine | None = None
        self._failure: AttributionError | None = None
        self._loaded = asyncio.Event()
        self._closing = False
        self._mean_s = 1.0

    @property
    def ready(self) -> bool:
        """Loaded, warm and not draining."""
        return self._engine is not None and not self._closing

    async def start(self) -> None:
        """Begin to load; returns at once."""
        loading = asyncio.get_running_loop().run_in_executor(self._worker, self._load)
        loading.add_done_callback(self._on_loaded)

    def _on_loaded(self, loading: "asyncio.Future[Engine]") -> None:
        if loading.cancelled():
            return
        error = loading.exception()
        if error is None:
            self._engine = loading.result()
        elif isinstance(error, AttributionError):
            self._failure = error
        else:
            log.error("loading failed", exc_info=error)
            self._failure = NotReady(
                f"Loading failed with {type(error).__name__}: {error}. The log of the server "
                "has the details; start it again when they are put right."
            )
        self._loaded.set()

    async def wait_loaded(self) -> ServiceInfo:
        """Wait until loading has ended.

        Raises:
            AttributionError: It failed, and why.
        """
        await self._loaded.wait()
        return await self.info()

    async def close(self) -> None:
        """Refuse new requests, finish those accepted, end the threads."""
        self._closing = True
        await asyncio.to_thread(self._worker.shutdown, wait=True)
        await asyncio.to_thread(self._reader.shutdown, wait=True)
        if self._engine is not None:
            self._engine.close()

    async def check_ready(self) -> None:
        """Return if ready, else raise why not."""
        self._ready_engine()

    def _ready_engine(self) -> "Engine":
        if self._closing:
            raise NotReady("The server is shutting down. Ask another one.")
        if self._failure is not None:
            raise self._failure
        if self._engine is None:
            raise NotReady(
                "The model and the index are being loaded. Try again in some seconds; /readyz "
                "says when.",
                retry_after_s=_LOADING_RETRY_S,
            )
        return self._engine

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """Attribute in the worker thread; see `service.attributor.Attributor`."""
        engine = self._ready_engine()
        if not self._places.acquire(blocking=False):
            raise Overloaded(waiting=self._queue_size, retry_after_s=self._seconds_for_queue())
        accepted = time.perf_counter()

        def work() -> AttributeResult:
            begun = time.perf_counter()
            result = engine.attribute(request, request_id=request_id)
            self._mean_s += _MEMORY_OF_RATE * (time.perf_counter() - begun - self._mean_s)
            waited = result.timings_ms.model_copy(update={"queue": 1e3 * (begun - accepted)})
            return result.model_copy(update={"timings_ms": waited})

        try:
            future = self._worker.submit(work)
        except RuntimeError as error:  # closed between the check and here
            self._places.release()
            raise NotReady("The server is shutting down. Ask another one.") from error
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def _leave(self, _done: "Future[AttributeResult]") -> None:
        self._places.release()

    def _seconds_for_queue(self) -> int:
        return max(1, math.ceil(self._mean_s * (self._queue_size + 1)))

    async def document(self, document_id: str) -> DocumentResult:
        """A document of the index, read in a thread of its own: it need not wait for the model."""
        engine = self._ready_engine()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, engine.document, document_id)

    async def info(self) -> ServiceInfo:
        """What is being served."""
        return self._ready_engine().info()
