"""Attribution by workers elsewhere: the API's side of the queue (`whence serve --queue`).

A request becomes a job (`service.jobs`), and the call waits for its answer. A caller that leaves
aborts its job. A job that Redis has lost, because it was started again without its data, is put
there again by whoever waits for it; computing a request twice does no harm. Importing this module
loads neither torch nor faiss.
"""

import asyncio
import json
import logging
import math
from typing import Any
from uuid import uuid4

from coredis.exceptions import RedisError
from streaq import StreaqError, Worker

from influence.errors import AttributionError, NotReady, Overloaded
from service.answers import Answers
from service.attributor import Serving
from service.jobs import WORKERS, Beat, Job, Terms, error_from_wire, new_queue
from service.metrics import Metrics
from service.schemas import AttributeRequest, AttributeResult, DocumentResult, ServiceInfo

log = logging.getLogger(__name__)

_POLL_S = 1.0  # how often the workers' beats are read
_LOOK_AGAIN_S = 2  # how often one who waits looks whether Redis still has the job, or an answer
_REDIS_RETRY_S = 0.25
_RETRY_S = 5
_LOST = (RedisError, OSError, StreaqError)


class QueueAttributor:
    """Lets workers attribute (`service.attributor.Attributor`).

    Args:
        redis_url: Where the queue is.
        terms: As of the workers.
        queue_size: Jobs in it, waiting or under way, from which on requests are refused.
        metrics: Where their number is told.
    """

    def __init__(
        self, redis_url: str, terms: Terms, *, queue_size: int, metrics: Metrics | None = None
    ) -> None:
        self._metrics = metrics or Metrics()
        self._redis_url = redis_url
        self._queue_size = queue_size
        self._terms = terms
        self._queue: Worker[Any] | None = None
        self._job: Job | None = None
        self._answers = Answers()
        self._beats: list[Beat] = []
        self._connecting: asyncio.Task[None] | None = None
        self._seen = asyncio.Event()
        self._accepted: set[asyncio.Task[Any]] = set()
        self._closing = False

    @property
    def ready(self) -> bool:
        """A worker is there, and nothing drains."""
        return bool(self._beats) and not self._closing

    @property
    def serving(self) -> Serving:
        """See `service.attributor.Attributor`; that of a worker."""
        return self._beat().serving

    @property
    def seconds_per_request(self) -> float:
        """Measured, of all workers together."""
        return 1 / sum(1 / max(beat.seconds_per_request, 1e-3) for beat in self._beats)

    def check_room(self) -> None:
        """See `service.attributor.Attributor`; Redis tells of others' jobs later."""
        if len(self._accepted) >= self._queue_size:
            raise self._overloaded(len(self._accepted))

    async def start(self) -> None:
        """Begin to connect; returns at once."""
        self._connecting = asyncio.create_task(self._stay_connected())

    async def wait_loaded(self) -> ServiceInfo:
        """Wait for the first worker."""
        await self._seen.wait()
        return await self.info()

    async def close(self) -> None:
        """Refuse new requests, wait for the answers of those accepted, disconnect."""
        self._closing = True
        await asyncio.gather(*self._accepted, return_exceptions=True)
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)

    async def check_ready(self) -> None:
        """Return if ready, else raise why not."""
        self._beat()

    def _beat(self) -> Beat:
        if self._closing:
            raise NotReady("The server is shutting down. Ask another one.")
        if not self._beats:
            raise NotReady(
                "No worker is there. Start one with `whence worker INDEX`; /readyz says when it "
                "has come.",
                retry_after_s=_RETRY_S,
            )
        return self._beats[0]

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """See `service.attributor.Attributor`."""
        content = {"request": request.model_dump(mode="json"), "request_id": request_id}
        return AttributeResult.model_validate_json(await self._ask("attribute", content))

    async def document(self, document_id: str) -> DocumentResult:
        """See `service.attributor.Attributor`."""
        return DocumentResult.model_validate_json(await self._ask("document", document_id))

    async def info(self) -> ServiceInfo:
        """See `service.attributor.Attributor`."""
        return self._beat().info

    async def _ask(self, kind: str, content: Any) -> str:
        self._beat()
        self.check_room()
        asking = asyncio.ensure_future(self._answer(kind, json.dumps(content)))
        self._accepted.add(asking)
        asking.add_done_callback(self._accepted.discard)
        try:
            outcome = await asking
        finally:
            asking.cancel()
        if "error" in outcome:
            raise error_from_wire(outcome["error"])
        return outcome["answer"]

    async def _answer(self, kind: str, content: str) -> dict[str, Any]:
        await self._refuse_when_full()
        job, again = uuid4().hex, False
        try:
            with self._answers.to(job) as coming:
                while True:
                    try:
                        if not (again and await self._is_known(job, coming)):
                            await self._put(job, kind, content)
                        async with asyncio.timeout(_LOOK_AGAIN_S):
                            return _outcome(await asyncio.shield(coming))
                    except TimeoutError:
                        pass  # nothing came yet, which is no failure: look again
                    except Exception as error:
                        if not _is_loss(error):
                            raise
                        await asyncio.sleep(_REDIS_RETRY_S)
                    again = True
        except asyncio.CancelledError:
            self._abort(job)
            raise

    async def _put(self, job: str, kind: str, content: str) -> None:
        """Once more does no harm while Redis has it."""
        if self._job is None:
            raise ConnectionError("Redis is away")
        task = self._job.enqueue(kind, content)
        task.id = job
        await task

    async def _is_known(self, job: str, coming: asyncio.Future[str]) -> bool:
        """Whether Redis has the job or its answer, which then has come."""
        if self._queue is None:
            raise ConnectionError("Redis is away")
        # A worker puts the one in place of the other at once, so they are looked for at once.
        async with self._queue.redis.pipeline(transaction=True) as pipe:
            waits = pipe.exists([self._queue.task_key + job])
            kept = pipe.get(self._queue.results_key + job)
        if (answer := await kept) is not None and not coming.done():
            coming.set_result(answer)
        return bool(await waits) or coming.done()

    def _abort(self, job: str) -> None:
        async def abort(queue: Worker[Any]) -> None:
            try:
                await queue.abort_by_id(job, timeout=0)
            except* (*_LOST, RuntimeError):
                log.warning("a job that nobody waits for could not be aborted")

        if self._queue is None:
            return
        aborting = asyncio.ensure_future(abort(self._queue))
        self._accepted.add(aborting)
        aborting.add_done_callback(self._accepted.discard)

    async def _refuse_when_full(self) -> None:
        try:
            if self._queue is None:
                raise ConnectionError("Redis is away")
            size = await self._queue.queue_size()
        except (*_LOST, RuntimeError) as error:
            raise NotReady(
                "The queue does not answer. Try again in some seconds.", retry_after_s=_RETRY_S
            ) from error
        if size >= self._queue_size:
            raise self._overloaded(size)

    def _overloaded(self, size: int) -> Overloaded:
        wait = max(1, math.ceil(size * self.seconds_per_request)) if self._beats else _RETRY_S
        return Overloaded(waiting=size, retry_after_s=wait)

    async def _stay_connected(self) -> None:
        warned = False
        while True:
            queue, job = new_queue(self._redis_url, _never, self._terms)
            try:
                async with queue, self._answers.coming(queue):
                    self._queue, self._job = queue, job
                    warned = False
                    await self._follow(queue)
            except* _LOST as lost:
                if not warned:
                    log.warning("the queue in Redis does not answer: %r", lost.exceptions[0])
                warned = True
            self._queue, self._job, self._beats = None, None, []
            self._metrics.queue_jobs.set(math.nan)
            await asyncio.sleep(_REDIS_RETRY_S)

    async def _follow(self, queue: Worker[Any]) -> None:
        """Read the workers' beats until Redis is another one, which does not know our functions."""
        run_id = None
        while True:
            found = (await queue.redis.info("server")).get("run_id")
            if run_id not in (None, found):
                return
            run_id = found
            ids = sorted(await queue.redis.smembers(WORKERS))
            beats = await queue.redis.mget([f"{WORKERS}:{one}" for one in ids]) if ids else ()
            gone = [one for one, beat in zip(ids, beats, strict=True) if beat is None]
            if gone:
                await queue.redis.srem(WORKERS, gone)
            self._beats = [Beat.model_validate_json(beat) for beat in beats if beat is not None]
            self._metrics.queue_jobs.set(await queue.queue_size())
            if self._beats:
                self._seen.set()
            await asyncio.sleep(_POLL_S)


def _outcome(answer: str) -> dict[str, Any]:
    """What a worker returned, out of what streaq writes about a job that has ended."""
    ended = json.loads(answer)
    if ended["s"]:
        return ended["r"]
    raise AttributionError(f"The job of this request failed: {ended['r']}")


def _is_loss(error: BaseException) -> bool:
    """Whether Redis is gone; a lost subscription comes as a group of all that failed with it."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_loss(one) for one in error.exceptions)
    # Whoever still uses a pool of connections that has been given up is told so by this.
    exited = isinstance(error, RuntimeError) and "pool" in str(error)
    return exited or isinstance(error, _LOST)


async def _never(_kind: str, _content: str) -> dict[str, Any]:
    raise AssertionError("a replica of the API does no jobs")
