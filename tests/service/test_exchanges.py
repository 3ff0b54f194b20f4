"""What was asked lately: for whom, for how long, and on which replica."""

import asyncio

import pytest

from influence.errors import NotFound
from service.cache import MemoryCache, RedisCache
from service.exchanges import Exchanges
from service.schemas import AttributeRequest
from service.usage import Usage

ASKED = AttributeRequest(prompt="who?", response="the king", top_k=3, usage=Usage(weight=2.0))


def test_it_is_kept_for_the_caller_without_what_it_counted_for():
    async def run():
        exchanges = Exchanges(MemoryCache(2**20), ttl_s=60)
        await exchanges.keep(ASKED, request_id="r", caller="anna")
        found = await exchanges.find("r", caller="anna")
        assert found == ASKED.model_copy(update={"usage": None})
        for request_id, caller in (("r", "bruno"), ("s", "anna")):
            with pytest.raises(NotFound):
                await exchanges.find(request_id, caller=caller)

    asyncio.run(run())


def test_it_is_not_kept_beyond_its_time():
    async def run():
        exchanges = Exchanges(MemoryCache(2**20), ttl_s=-1)
        await exchanges.keep(ASKED, request_id="r", caller="anna")
        with pytest.raises(NotFound, match="POST /attribute"):
            await exchanges.find("r", caller="anna")

    asyncio.run(run())


def test_another_replica_finds_it_in_redis(redis_url):
    async def run():
        caches = [RedisCache(redis_url, ttl_s=60) for _ in range(2)]
        one, other = (Exchanges(cache, ttl_s=60) for cache in caches)
        await one.keep(ASKED, request_id="r", caller="anna")
        assert (await other.find("r", caller="anna")).response == ASKED.response
        for cache in caches:
            await cache.close()

    asyncio.run(run())
