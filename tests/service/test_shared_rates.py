"""The shared window in a real Redis against the plain definition, and what is when it is gone."""

import asyncio

import pytest
import redis

from influence.errors import RateLimited
from service.rates import OwnRates
from service.shared_rates import SharedRates


async def admitted(rates, key, per_minute, times) -> int:
    count = 0
    for _ in range(times):
        try:
            await rates.admit(key, per_minute)
        except RateLimited:
            continue
        else:
            count += 1
    return count


def test_replicas_share_a_rate_and_count_together(redis_url):
    async def scenario():
        first, second = SharedRates(redis_url), SharedRates(redis_url)
        found = await asyncio.gather(
            *(admitted(rates, "key", 7, 5) for rates in (first, second) * 3)
        )
        assert sum(found) == 7
        assert await admitted(first, "other", 2, 3) == 2
        assert await admitted(second, "unlimited", None, 5) == 5
        for rates in (first, second):
            told = {one.key: (one.admitted, one.refused) for one in await rates.usage()}
            assert told == {"key": (7, 23), "other": (2, 1), "unlimited": (5, 0)}
            await rates.close()

    asyncio.run(scenario())


def test_more_requests_at_once_than_connections_are_counted_all_the_same(redis_url):
    async def scenario():
        rates = SharedRates(redis_url)
        found = await asyncio.gather(*(admitted(rates, "key", 7, 1) for _ in range(300)))
        told = [(one.admitted, one.refused) for one in await rates.usage()]
        await rates.close()
        assert (sum(found), told) == (7, [(7, 293)])

    asyncio.run(scenario())


def test_a_request_leaves_the_window_a_minute_later_and_a_clock_that_jumped_locks_nobody_out(
    redis_url,
):
    """As if time had passed, or the clock of Redis had been set: moments are moved instead."""
    moved = redis.Redis.from_url(redis_url)

    def shift(seconds):
        for name, moment in moved.zrange("whence:rate:key", 0, -1, withscores=True):
            moved.zadd("whence:rate:key", {name: moment + 1e6 * seconds})

    async def scenario():
        rates = SharedRates(redis_url)
        assert await admitted(rates, "key", 3, 5) == 3
        shift(-58)
        with pytest.raises(RateLimited) as refused:
            await rates.admit("key", 3)
        assert refused.value.retry_after_s <= 2  # 60 - 58, less what the test took
        shift(-2)
        assert await admitted(rates, "key", 3, 5) == 3
        shift(+3600)
        assert await admitted(rates, "key", 3, 5) == 3
        await rates.close()

    asyncio.run(scenario())
    moved.close()


def test_without_redis_the_rate_is_that_of_the_replica_and_one_warning(
    redis_server, redis_url, caplog
):
    async def scenario():
        rates = SharedRates(redis_url)
        assert await admitted(rates, "key", 5, 2) == 2
        port = redis_server.port
        redis_server.stop()
        assert await admitted(rates, "key", 5, 9) == 5
        assert [one.admitted for one in await rates.usage()] == [5]  # what it knows by itself
        assert len(caplog.records) == 1
        assert "every replica counts by itself" in caplog.text
        redis_server._desired_port = port
        await asyncio.to_thread(redis_server.start)
        rates._shared._gone_until = 0.0  # as if it had rested
        await rates.admit("key", 5)
        assert len(caplog.records) == 2
        ((day,),) = [[(one.admitted, one.refused) for one in await rates.usage()]]
        assert day == (6, 4)  # counted meanwhile, and added; Redis had lost what was before
        await rates.close()

    asyncio.run(scenario())


def test_a_process_by_itself_counts_in_memory():
    async def scenario():
        rates = OwnRates()
        assert await admitted(rates, "key", 2, 3) == 2
        (told,) = await rates.usage()
        assert (told.key, told.admitted, told.refused) == ("key", 2, 1)

    asyncio.run(scenario())
