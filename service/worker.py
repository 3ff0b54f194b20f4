"""A worker: the model and its index, fed from the queue (`whence worker INDEX`).

As many jobs run at a time as make good batches, each of them a call of the attributor of this
process, so jobs of all replicas go through the model together. A worker that loses Redis goes on
when it is back. Importing this module loads neither torch nor faiss.
"""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from coredis.exceptions import RedisError
from streaq import StreaqError, Worker

from influence.errors import AttributionError, NotReady
from service.attributor import Attributor
from service.jobs import (
    BEAT_S,
    BEAT_TTL_S,
    MAX_TRIES,
    SET_ASIDE,
    WORKERS,
    Beat,
    Job,
    Terms,
    error_to_wire,
    new_queue,
)
from service.metrics import Metrics
from service.schemas import AttributeRequest

log = logging.getLogger(__name__)

_SET_ASIDE_AT_MOST = 1_000
_REDIS_RETRY_S = 1.0
_ENDED_WORKERS = (
    "{tries} workers ended while they computed this. Look for their end in the log: out of memory, "
    "or a crash of a library."
)


class QueueWorker:
    """Does jobs until it is told to end.

    Args:
        attributor: Loaded and ready; not closed here.
        redis_url: Where the queue is.
        terms: As of the API.
        concurrency: Jobs at a time.
        metrics: Where it is told what is served, and how many jobs there are.
    """

    def __init__(
        self,
        attributor: Attributor,
        redis_url: str,
        terms: Terms,
        *,
        concurrency: int,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._attributor = attributor
        self._redis_url = redis_url
        self._terms = terms
        self._concurrency = concurrency
        self._queue: Worker[Any] | None = None
        self._job: Job | None = None

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT; what was begun is finished, the rest is left to others."""
        while True:
            self._queue, self._job = new_queue(
                self._redis_url,
                self._do,
                self._terms,
                concurrency=self._concurrency,
                lifespan=self._beating,
            )
            try:
                await self._queue.run_async()
            except* (RedisError, OSError, StreaqError) as lost:
                log.warning("the queue in Redis does not answer: %r", lost.exceptions[0])
            else:
                return
            await asyncio.sleep(_REDIS_RETRY_S)

    async def _do(self, kind: str, content: str) -> dict[str, Any]:
        assert self._job is not None
        context = self._job.context
        if context.tries > MAX_TRIES:
            cause = _ENDED_WORKERS.format(tries=MAX_TRIES)
            return await self._set_aside(context.task_id, kind, content, cause)
        try:
            return {"answer": await self._answer(kind, json.loads(content))}
        except AttributionError as error:
            return {"error": error_to_wire(error)}
        except Exception as error:
            log.exception("job %s failed", context.task_id)
            cause = "".join(traceback.format_exception(error))
            return await self._set_aside(context.task_id, kind, content, cause)

    async def _answer(self, kind: str, content: Any) -> str:
        if kind == "document":
            return (await self._attributor.document(content)).model_dump_json()
        request = AttributeRequest.model_validate(content["request"])
        found = await self._attributor.attribute(request, request_id=content["request_id"])
        return found.model_dump_json()

    async def _set_aside(self, job: str, kind: str, content: str, cause: str) -> dict[str, Any]:
        assert self._queue is not None
        entry = {"job": job, "kind": kind, "content": json.loads(content), "cause": cause}
        log.error("job %s is set aside in %s: %s", job, SET_ASIDE, cause)
        async with self._queue.redis.pipeline(transaction=True) as pipe:
            pipe.lpush(SET_ASIDE, [json.dumps(entry)])
            pipe.ltrim(SET_ASIDE, 0, _SET_ASIDE_AT_MOST - 1)
        return {
            "error": error_to_wire(
                AttributionError(
                    "This request could not be computed. The operator finds it, with the cause, "
                    f"under {job} in {SET_ASIDE}."
                )
            )
        }

    @asynccontextmanager
    async def _beating(self) -> AsyncIterator[None]:
        beating = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self) -> None:
        assert self._queue is not None
        redis, name = self._queue.redis, f"{WORKERS}:{self._queue.id}"
        while True:
            try:
                beat = Beat(
                    serving=self._attributor.serving,
                    info=await self._attributor.info(),
                    seconds_per_request=self._attributor.seconds_per_request,
                )
            except NotReady:  # draining
                self._metrics.serves(None)
                return
            self._metrics.serves(beat.info)
            self._metrics.queue_jobs.set(await self._queue.queue_size())
            async with redis.pipeline(transaction=False) as pipe:
                pipe.sadd(WORKERS, [self._queue.id])
                pipe.set(name, beat.model_dump_json(), ex=BEAT_TTL_S)
            await asyncio.sleep(BEAT_S)
