"""Which requests go through the model together.

A batch is padded to its longest sequence, so it costs ``rows · longest`` tokens and is filled while
that stays within a budget. Requests wait in *lanes* by length, each lane twice as long as the one
before, and the lane that was served longest ago is served next. So

- padding is less than half of a batch,
- a short request waits for one batch of every longer lane at most, however many long ones wait,
- a long request has its turn, however many short ones come,
- within a lane the first to come is the first to go, alone if it is over the budget by itself.

A first request waits a moment for company, and no longer than `max_wait_s`. Those that come while
the model works form the next batch. Those that it has just answered are waited for, since many ask
again at once: else callers of a fixed number would fall into two halves that never meet. That costs
a twentieth of the time that the model had worked, at most.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Work = TypeVar("Work")
Answer = TypeVar("Answer")

_SHORTEST_LANE = 64  # tokens; below, a pass costs what it costs whatever the length
_FOR_RETURNS = 0.05  # of the time a batch took, to wait for those that it answered
_MEMORY_OF_RATE = 0.2  # weight of the newest batch in the measured seconds a request


@dataclass(frozen=True)
class Size:
    """What a request asks of the model: sequences, and the tokens of the longest."""

    rows: int
    longest: int

    @property
    def lane(self) -> int:
        """Lane of its length."""
        return (max(self.longest, _SHORTEST_LANE) - 1).bit_length()


@dataclass(eq=False)
class Waiting(Generic[Work, Answer]):
    """A request in the queue."""

    work: Work
    size: Size
    answer: "asyncio.Future[Answer]"
    since: float


class Lanes(Generic[Work, Answer]):
    """The queue: requests by length, taken in turns (see the module).

    Args:
        batch_tokens: Most tokens of a batch, padding included; one request alone may have more.
    """

    def __init__(self, batch_tokens: int) -> None:
        self._batch_tokens = batch_tokens
        self._lanes: dict[int, deque[Waiting[Work, Answer]]] = {}  # least recently served first

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def add(self, item: Waiting[Work, Answer]) -> None:
        """Put a request at the end of its lane."""
        self._lanes.setdefault(item.size.lane, deque()).append(item)

    def discard(self, item: Waiting[Work, Answer]) -> None:
        """Take a request out that is no longer wanted, if it is still here."""
        lane = self._lanes.get(item.size.lane, deque())
        if item in lane:
            lane.remove(item)

    def oldest(self) -> float | None:
        """When the request came that has waited longest; None when nobody waits."""
        return min((lane[0].since for lane in self._lanes.values() if lane), default=None)

    def is_full(self) -> bool:
        """Whether what waits fills a batch."""
        return any(
            sum(i.size.rows for i in lane) * max(i.size.longest for i in lane) >= self._batch_tokens
            for lane in self._lanes.values()
            if lane
        )

    def take(self) -> list[Waiting[Work, Answer]]:
        """The next batch; empty when nobody waits."""
        for key, lane in self._lanes.items():
            if lane:
                self._lanes[key] = self._lanes.pop(key)  # served last from now on
                return self._fill(lane)
        return []

    def _fill(self, lane: "deque[Waiting[Work, Answer]]") -> list[Waiting[Work, Answer]]:
        batch: list[Waiting[Work, Answer]] = []
        rows = longest = 0
        while lane:
            rows += lane[0].size.rows
            longest = max(longest, lane[0].size.longest)
            if batch and rows * longest > self._batch_tokens:
                break
            batch.append(lane.popleft())
        return batch


class Batcher(Generic[Work, Answer]):
    """Requests in, batches to the model, answers out; one batch at a time.

    Args:
        compute: Answers a batch; an exception among the answers is that request's own.
        batch_tokens: Most tokens of a batch.
        max_wait_s: How long a request waits for company while the model is idle.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Work]], Awaitable[Sequence[Answer | Exception]]],
        *,
        batch_tokens: int,
        max_wait_s: float,
    ) -> None:
        self._compute = compute
        self._max_wait_s = max_wait_s
        self._lanes: Lanes[Work, Answer] = Lanes(batch_tokens)
        self._arrived = asyncio.Event()
        self._may_return = 0  # of those that the last batch answered
        self._returns_until = 0.0
        self._closing = False
        self.busy = False  # the model works
        self.seconds_per_request = 1.0  # measured; a guess before the first batch

    def __len__(self) -> int:
        """How many wait."""
        return len(self._lanes)

    async def submit(self, work: Work, size: Size) -> Answer:
        """The answer to one request; cancelling the call takes it out of the queue."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        item = Waiting(work, size, answer, time.monotonic())
        self._lanes.add(item)
        self._may_return -= 1
        self._arrived.set()
        try:
            return await answer
        finally:
            self._lanes.discard(item)

    def close(self) -> None:
        """Let `run` return when nobody waits any more."""
        self._closing = True
        self._arrived.set()

    async def run(self) -> None:
        """Serve batches until closed and empty."""
        while True:
            self._arrived.clear()
            if self._lanes.oldest() is None:
                if self._closing:
                    return
                await self._arrived.wait()
            await self._gather_company()
            if batch := self._lanes.take():
                await self._serve(batch)

    async def _gather_company(self) -> None:
        oldest = self._lanes.oldest()
        while oldest is not None and not self._lanes.is_full() and not self._closing:
            until = oldest + self._max_wait_s
            if self._may_return > 0:
                until = max(until, self._returns_until)
            left = until - time.monotonic()
            if left <= 0:
                return
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    async def _serve(self, batch: "Sequence[Waiting[Work, Answer]]") -> None:
        begun = time.monotonic()
        self.busy = True
        try:
            answers = await self._compute([item.work for item in batch])
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and the next batch goes on
            answers = [error] * len(batch)
        self.busy = False
        now = time.monotonic()
        took = (now - begun) / len(batch)
        self.seconds_per_request += _MEMORY_OF_RATE * (took - self.seconds_per_request)
        self._may_return, self._returns_until = len(batch), now + _FOR_RETURNS * (now - begun)
        for item, answer in zip(batch, answers, strict=True):
            if item.answer.done():  # it left while the model worked
                continue
            if isinstance(answer, Exception):
                item.answer.set_exception(answer)
            else:
                item.answer.set_result(answer)
