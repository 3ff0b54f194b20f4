"""The answers to a replica's jobs, as workers publish them: one subscription for all of them.

streaq has a subscription, and a connection to Redis, for each answer. Here the answers to all jobs
of the queue come on one connection, also those of other replicas, which are told by their channels
and passed over. Redis keeps an answer for a while too, for whoever missed it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from coredis.patterns.pubsub import ClusterPubSub, PubSub
from streaq import Worker
from streaq.constants import REDIS_CHANNEL

_SUBSCRIPTION_S = 5


class Answers:
    """Gives each answer to who waits for it."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[str]] = {}

    @asynccontextmanager
    async def coming(self, queue: Worker[Any]) -> AsyncIterator[None]:
        """Take answers meanwhile."""
        channels = queue.prefix + REDIS_CHANNEL
        async with (
            queue.redis.pubsub(
                patterns=[f"{channels}*"],
                ignore_subscribe_messages=True,
                subscription_timeout=_SUBSCRIPTION_S,
            ) as published,
            asyncio.TaskGroup() as group,
        ):
            taking = group.create_task(self._take(published, channels))
            yield
            taking.cancel()

    @contextmanager
    def to(self, job: str) -> Iterator[asyncio.Future[str]]:
        """The answer to a job, which must not be in the queue yet: it could come too early."""
        self._waiting[job] = asyncio.get_running_loop().create_future()
        try:
            yield self._waiting[job]
        finally:
            del self._waiting[job]

    async def _take(self, published: PubSub[str] | ClusterPubSub[str], channels: str) -> None:
        async for message in published:
            waiting = self._waiting.get(str(message["channel"]).removeprefix(channels))
            if waiting is not None and not waiting.done():
                waiting.set_result(str(message["data"]))
        raise ConnectionError("the subscription to answers has ended")
