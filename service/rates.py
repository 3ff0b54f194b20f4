"""How often each key has asked: a window of a minute that slides, and counts of every day.

In one process both are kept here; where replicas share a Redis, they are kept there
(`service.shared_rates`). Importing this module loads neither torch nor faiss.
"""

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from influence.errors import RateLimited

WINDOW_S = 60.0

Outcome = Literal["admitted", "refused"]


class KeyUsage(BaseModel):
    """What a key has asked for on one day."""

    model_config = ConfigDict(frozen=True)

    day: date = Field(description="In UTC.", examples=["2026-10-17"])
    key: str = Field(description="Id of the key.", examples=["3f9a1c22"])
    admitted: int = Field(description="Requests within its rate.", examples=[1204])
    refused: int = Field(description="Requests over its rate.", examples=[3])


class Rates(Protocol):
    """Lets in and counts."""

    async def admit(self, key: str, per_minute: int | None) -> None:
        """Count a request; ``per_minute`` is the key's rate, None: as many as it likes.

        Raises:
            RateLimited: It has had that many within the last minute.
        """
        ...

    async def usage(self) -> tuple[KeyUsage, ...]:
        """What was counted, day by day, the newest first."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class SlidingWindow:
    """Exact for one process: the moments of the last minute's requests, by name.

    A refused request does not count, so that a client which keeps asking is let in as soon as one
    that waits. It needs no more memory than the limits admit.

    Args:
        clock: Seconds from any beginning, never backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moments: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, name: str, per_minute: int | None) -> None:
        """Count a request of ``name``; None: as many as it likes, and nothing is kept.

        Raises:
            RateLimited: It has had ``per_minute`` of them within the last minute.
        """
        if per_minute is None:
            return
        now = self._clock()
        moments = self._moments[name]
        while moments and moments[0] <= now - WINDOW_S:
            moments.popleft()
        if len(moments) >= per_minute:
            free_at = moments[len(moments) - per_minute] + WINDOW_S
            raise too_often(per_minute, free_at - now)
        moments.append(now)


class OwnRates:
    """Those of this process, forgotten at its end (`Rates`)."""

    def __init__(self) -> None:
        self._window = SlidingWindow()
        self._counts: Counter[tuple[str, str, Outcome]] = Counter()

    async def admit(self, key: str, per_minute: int | None) -> None:
        """See `Rates`."""
        try:
            self._window.count(key, per_minute)
        except RateLimited:
            self._counts[today(), key, "refused"] += 1
            raise
        self._counts[today(), key, "admitted"] += 1

    async def usage(self) -> tuple[KeyUsage, ...]:
        """See `Rates`."""
        return usage_of(self._counts)

    def taken(self) -> dict[tuple[str, str, Outcome], int]:
        """What was counted since this was last asked: day, key and outcome."""
        counts, self._counts = self._counts, Counter()
        return dict(counts)

    async def close(self) -> None:
        """See `Rates`."""


def usage_of(counts: Mapping[tuple[str, str, Outcome], int]) -> tuple[KeyUsage, ...]:
    """Counts by day, key and outcome, as they are told."""
    days = {(day, key) for day, key, _ in counts}
    return tuple(
        KeyUsage(
            day=date.fromisoformat(day),
            key=key,
            admitted=counts.get((day, key, "admitted"), 0),
            refused=counts.get((day, key, "refused"), 0),
        )
        for day, key in sorted(days, key=lambda one: (one[0], one[1]), reverse=True)
    )


def today() -> str:
    """The day in UTC, as it is written."""
    return datetime.now(UTC).date().isoformat()


def too_often(per_minute: int, wait_s: float) -> RateLimited:
    """The refusal, and when to come back: never before it helps."""
    return RateLimited(per_minute=per_minute, retry_after_s=max(1, math.ceil(wait_s)))
