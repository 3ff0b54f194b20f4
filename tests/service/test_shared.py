"""A Redis that is busy is not taken for one that is gone."""

import asyncio

from service.shared import SharedRedis


def test_who_waits_long_for_a_connection_is_answered_all_the_same(redis_url, caplog):
    """Four times as many calls as connections, each of .3 s: the last ones wait .9 s for theirs."""

    async def scenario():
        shared = SharedRedis(redis_url, what="Redis", meanwhile="the test fails")
        calls = (shared.ask(lambda redis: redis.blpop("nothing", timeout=0.3)) for _ in range(128))
        assert await asyncio.gather(*calls) == [None] * 128
        await shared.close()

    asyncio.run(scenario())
    assert not caplog.records
