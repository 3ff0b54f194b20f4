"""Rates of keys that replicas share in Redis, so that a key has its rate once and not per replica.

One script for each request: it counts, and decides, in one step that no other replica can come
between, by the clock of Redis. Packages that do this (`limits`) take the clock of each replica, and
then one whose clock is off lets its callers in early or keeps them out. A clock of Redis that jumps
forward forgets the window, one that jumps back forgets what is in its future: a key may then ask
twice its rate in that minute, and is never kept out for longer than one.

While Redis is gone each replica keeps the rates by itself (`service.rates.OwnRates`), after one
warning; what it counted meanwhile is added when Redis is back. Importing this module loads neither
torch nor faiss.
"""

import json
import uuid
from collections.abc import Awaitable
from typing import Any, cast

from redis.asyncio import Redis

from service.rates import WINDOW_S, KeyUsage, OwnRates, today, too_often, usage_of
from service.shared import Gone, SharedRedis

_PREFIX = "whence:rate:"
_USAGE = "whence:usage:"
_KEPT_DAYS = 400  # a year and its month of accounts
_DAY_S = 86_400

# KEYS: the window of a key, the counts of the day. ARGV: the window in microseconds, the rate (0:
# none), a name for this request, the fields of the counts for admitted and refused, seconds to keep
# them. Returns the microseconds to wait, 0 when admitted. Numbers are formatted here, since Lua
# would write a time in microseconds with 14 digits.
_ADMIT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local wait = 0
if rate > 0 then
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
    redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')
    local had = redis.call('ZCARD', KEYS[1])
    if had < rate then
        redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
        redis.call('PEXPIRE', KEYS[1], window / 1000)
    else
        local frees = redis.call('ZRANGE', KEYS[1], had - rate, had - rate, 'WITHSCORES')[2]
        wait = frees + window - now
    end
end
redis.call('HINCRBY', KEYS[2], wait > 0 and ARGV[5] or ARGV[4], 1)
redis.call('EXPIRE', KEYS[2], ARGV[6])
return wait
"""


class SharedRates:
    """Those of all replicas of one Redis (`service.rates.Rates`).

    Args:
        url: `redis://…`.
    """

    def __init__(self, url: str) -> None:
        self._shared = SharedRedis(
            url, what="Redis with the rates of keys", meanwhile="every replica counts by itself"
        )
        self._own = OwnRates()

    async def admit(self, key: str, per_minute: int | None) -> None:
        """See `service.rates.Rates`."""
        day = today()
        arguments = (
            *(f"{_PREFIX}{key}", f"{_USAGE}{day}"),
            *(int(1e6 * WINDOW_S), per_minute or 0, uuid.uuid4().hex),
            *(_field(key, "admitted"), _field(key, "refused"), _KEPT_DAYS * _DAY_S),
        )
        try:
            wait_us = await self._shared.ask(
                lambda redis: cast("Awaitable[int]", redis.eval(_ADMIT, 2, *arguments))
            )
        except Gone:
            await self._own.admit(key, per_minute)
            return
        await self._add_what_was_counted_here()
        if wait_us > 0:
            assert per_minute is not None
            raise too_often(per_minute, wait_us / 1e6)

    async def usage(self) -> tuple[KeyUsage, ...]:
        """See `service.rates.Rates`; while Redis is gone, what this replica counts meanwhile."""
        try:
            return usage_of(await self._shared.ask(_read))
        except Gone:
            return await self._own.usage()

    async def close(self) -> None:
        """See `service.rates.Rates`."""
        await self._shared.close()

    async def _add_what_was_counted_here(self) -> None:
        for (day, key, outcome), count in self._own.taken().items():
            name, field = f"{_USAGE}{day}", _field(key, outcome)
            try:
                await self._shared.ask(
                    lambda redis, n=name, f=field, c=count: cast(
                        "Awaitable[int]", redis.hincrby(n, f, c)
                    )
                )
            except Gone:  # gone again, and so are these counts; rates do not depend on them
                return


async def _read(redis: Redis) -> dict[Any, int]:
    counts: dict[Any, int] = {}
    async for name in redis.scan_iter(match=f"{_USAGE}*"):
        day = name.decode().removeprefix(_USAGE)
        found = await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(name))
        for field, count in found.items():
            key, outcome = json.loads(field)
            counts[day, key, outcome] = int(count)
    return counts


def _field(key: str, outcome: str) -> str:
    return json.dumps([key, outcome])
