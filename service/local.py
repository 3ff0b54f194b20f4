"""The engine in this process: tokens in one thread, the model in another, batches between them.

The model computes one batch at a time; what comes meanwhile waits in a bounded queue
(`service.batching`) and goes together. Cancelling a call takes its request out of the queue, so
work that nobody waits for never reaches the model. A request is answered by the engine that took
it; another one may take that engine's place between two requests. Importing this module loads
neither torch nor faiss: the function that loads the engine does, in the model's thread.
"""

import asyncio
import logging
import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from influence.errors import AttributionError, NotReady, Overloaded
from service.attributor import Serving
from service.batching import Batcher
from service.metrics import Metrics
from service.schemas import AttributeRequest, AttributeResult, DocumentResult, ServiceInfo

if TYPE_CHECKING:
    from service.engine import Asked, Engine

Read = TypeVar("Read")

log = logging.getLogger(__name__)

_LOADING_RETRY_S = 5
_NICER = 5  # a third of the weight that the scheduler gives to others, while they want it


class LocalAttributor:
    """Runs an engine in threads (`service.attributor.Attributor`).

    Args:
        load: Makes the engine, warm; called once, in the model's thread.
        queue_size: Requests that may wait besides those that are computed.
        batch_tokens: Most tokens of a batch, padding included.
        batch_wait_s: How long a request waits for company while the model is idle.
        metrics: What is counted.
    """

    def __init__(
        self,
        load: "Callable[[], Engine]",
        *,
        queue_size: int = 64,
        batch_tokens: int = 2048,
        batch_wait_s: float = 0.002,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._metrics.watch_queue(lambda: self.waiting)
        self._load = load
        self._queue_size = queue_size
        self._model = ThreadPoolExecutor(1, "model", _give_way)
        # One thread for each, since neither a tokenizer nor a Parquet reader is for two at once.
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="documents")
        self._batcher: Batcher[_Accepted, AttributeResult] = Batcher(
            self._compute, batch_tokens=batch_tokens, max_wait_s=batch_wait_s
        )
        self._serving: asyncio.Task[None] | None = None
        self._engine: Engine | None = None
        self._failure: AttributionError | None = None
        self._loaded = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._users: Counter[Engine] = Counter()  # calls that are with an engine
        self._retiring: set[asyncio.Task[None]] = set()
        self._in_tokenizer = 0
        self._closing = False

    @property
    def ready(self) -> bool:
        """Loaded, warm and not draining."""
        return self._engine is not None and not self._closing

    @property
    def serving(self) -> Serving:
        """See `service.attributor.Attributor`."""
        return self._ready_engine().serving

    @property
    def seconds_per_request(self) -> float:
        """See `service.attributor.Attributor`."""
        return self._batcher.seconds_per_request

    @property
    def waiting(self) -> int:
        """Requests that wait for the model."""
        return self._in_tokenizer + len(self._batcher)

    def check_room(self) -> None:
        """See `service.attributor.Attributor`."""
        self._ready_engine()
        free = self.waiting == 0 and not self._batcher.busy
        if self.waiting >= self._queue_size and not free:
            raise Overloaded(waiting=self.waiting, retry_after_s=self._seconds_for_queue())

    async def start(self) -> None:
        """Begin to load; returns at once."""
        self._serving = asyncio.create_task(self._batcher.run())
        loading = asyncio.get_running_loop().run_in_executor(self._model, self._load)
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
        await self._idle.wait()
        self._batcher.close()
        if self._serving is not None:
            await self._serving
        await asyncio.gather(*self._retiring)
        for threads in (self._model, self._tokenizer, self._reader):
            await asyncio.to_thread(threads.shutdown, wait=True)
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
        """Attribute in a batch; see `service.attributor.Attributor`."""
        with self._place() as engine:
            accepted_at = time.perf_counter()
            self._in_tokenizer += 1
            try:
                asked = await self.in_tokenizer(lambda: engine.read(request, request_id=request_id))
            finally:
                self._in_tokenizer -= 1
            return await self._batcher.submit(_Accepted(engine, asked, accepted_at), asked.size)

    async def in_tokenizer(self, read: Callable[[], Read]) -> Read:
        """What needs the tokenizer, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizer, read)

    @contextmanager
    def _place(self) -> "Iterator[Engine]":
        self.check_room()
        with self.engine_in_use() as engine:
            yield engine

    @contextmanager
    def engine_in_use(self) -> "Iterator[Engine]":
        """The engine that answers now; it stays open inside the block, even if it is replaced."""
        engine = self._ready_engine()
        self._users[engine] += 1
        self._idle.clear()
        try:
            yield engine
        finally:
            self._users[engine] -= 1
            if not self._users[engine]:
                del self._users[engine]
                if engine is not self._engine:
                    retiring = asyncio.create_task(self._retire(engine))
                    self._retiring.add(retiring)
                    retiring.add_done_callback(self._retiring.discard)
            if not self._users:
                self._idle.set()

    async def swap(self, open_next: "Callable[[Engine], Engine]") -> None:
        """Let another engine answer from the next request on; those under way end with theirs.

        Args:
            open_next: Makes it from the present one, with the same model; runs in a thread of its
                own while the present one answers.

        Raises:
            NotReady: Loading or draining.
            AttributionError: It cannot be opened or does not answer; the present one goes on.
        """
        with self.engine_in_use() as present:
            following = await asyncio.to_thread(open_next, present)
            try:
                # In the model's thread: two engines never take gradients of one model at once.
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._model, following.warm_up)
                self._ready_engine()
            except BaseException:
                following.close()
                raise
            self._engine = following

    async def _retire(self, engine: "Engine") -> None:
        loop = asyncio.get_running_loop()
        # Callers that left may have left work with it in these threads, which goes first.
        for threads in (self._tokenizer, self._reader):
            await loop.run_in_executor(threads, int)
        await loop.run_in_executor(self._model, engine.close)

    def _seconds_for_queue(self) -> int:
        return max(1, math.ceil(self.seconds_per_request * self.waiting))

    async def _compute(
        self, batch: "Sequence[_Accepted]"
    ) -> "Sequence[AttributeResult | Exception]":
        return await asyncio.get_running_loop().run_in_executor(self._model, self._work, batch)

    def _work(self, batch: "Sequence[_Accepted]") -> "Sequence[AttributeResult | Exception]":
        self._metrics.batched([accepted.asked.size for accepted in batch])
        begun = time.perf_counter()
        answers: dict[int, AttributeResult | Exception] = {}
        for engine in dict.fromkeys(accepted.engine for accepted in batch):  # two, after a swap
            own = [number for number, accepted in enumerate(batch) if accepted.engine is engine]
            found = engine.attribute_many([batch[number].asked for number in own])
            answers.update(zip(own, found, strict=True))
        return [
            answer
            if isinstance(answer := answers[number], Exception)
            else _with_queue_time(answer, begun - accepted.at)
            for number, accepted in enumerate(batch)
        ]

    async def document(self, document_id: str) -> DocumentResult:
        """A document of the index, read in a thread of its own: it need not wait for the model."""
        loop = asyncio.get_running_loop()
        with self.engine_in_use() as engine:
            return await loop.run_in_executor(self._reader, engine.document, document_id)

    async def info(self) -> ServiceInfo:
        """What is being served."""
        return self._ready_engine().info()


def _give_way() -> None:
    """Let this thread, and those of torch that it starts, have a processor after all others.

    Model and event loop share the processors; an answer or a refusal takes one for a millisecond,
    and should not wait for a matrix product to end. Linux alone has priorities of threads.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread) + _NICER
        os.setpriority(os.PRIO_PROCESS, thread, min(nice, 19))


@dataclass(frozen=True)
class _Accepted:
    engine: "Engine"
    asked: "Asked"
    at: float  # of time.perf_counter


def _with_queue_time(result: AttributeResult, waited_s: float) -> AttributeResult:
    timings = result.timings_ms.model_copy(update={"queue": 1e3 * waited_s})
    return result.model_copy(update={"timings_ms": timings})
