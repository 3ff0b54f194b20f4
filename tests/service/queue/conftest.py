"""A queue in a real Redis, replicas before it and workers behind it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from service.engine import Engine
from service.jobs import Terms
from service.local import LocalAttributor
from service.queue import QueueAttributor
from service.schemas import AttributeRequest
from service.worker import QueueWorker


@dataclass(frozen=True)
class Split:
    """Makes both sides of a queue."""

    tiny: Any
    redis_url: str
    terms: Terms

    @asynccontextmanager
    async def working(self, load, *, concurrency=8) -> AsyncIterator[LocalAttributor]:
        """A worker in this process; its model, for a look at what reached it."""
        attributor = LocalAttributor(load)
        await attributor.start()
        await attributor.wait_loaded()
        worker = QueueWorker(attributor, self.redis_url, self.terms, concurrency=concurrency)
        task = asyncio.create_task(worker.run())
        try:
            yield attributor
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await attributor.close()

    @asynccontextmanager
    async def asking(
        self, redis_url=None, *, queue_size=64, worker=True
    ) -> AsyncIterator[QueueAttributor]:
        """A replica of the API without a model."""
        attributor = QueueAttributor(redis_url or self.redis_url, self.terms, queue_size=queue_size)
        await attributor.start()
        if worker:
            await attributor.wait_loaded()
        try:
            yield attributor
        finally:
            await attributor.close()

    def noting(
        self, work: Callable[[Any], object] = lambda asked: None
    ) -> tuple[Callable[[], Engine], list[list[str]]]:
        """Loads an engine that notes its batches and does something before each; the batches."""
        batches: list[list[str]] = []

        class Noting(Engine):
            def attribute_many(self, asked):
                if asked[0].request_id != "warm-up":
                    batches.append([one.request_id for one in asked])
                    work(asked)
                return super().attribute_many(asked)

        folders = self.tiny.index_dir, self.tiny.model_dir
        return lambda: Noting.load(*folders, device="cpu"), batches

    @staticmethod
    def ask(prompt="who?", response="the king") -> AttributeRequest:
        return AttributeRequest(prompt=prompt, response=response, top_k=2)

    @staticmethod
    def run(scenario) -> None:
        asyncio.run(asyncio.wait_for(scenario, 90))

    @staticmethod
    async def until(condition) -> None:
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def split(tiny, redis_url) -> Split:
    """Workers, replicas and a Redis of this test's own."""
    return Split(tiny, redis_url, Terms(expire_s=60, dead_after_s=1.0))
