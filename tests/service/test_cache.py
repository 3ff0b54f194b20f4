"""Answers are kept under everything that they depend on; a cache that is gone is no cache."""

import asyncio
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence.errors import QueryTooLong
from service.attributor import Serving
from service.cache import MemoryCache, RedisCache, answer_key
from service.caching import CachingAttributor
from service.engine import Engine
from service.local import LocalAttributor
from service.schemas import AttributeRequest, IndexReference

ASK = {"prompt": "who?", "response": "the king", "top_k": 2}
SERVING = Serving(
    index=IndexReference(id="library", version="000001-aaaaaaaaaaaa", exact=True),
    weights_sha256="w",
    tokenizer_sha256="t",
    dtype="float32",
    program="1",
)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "Who?"},
        {"response": "the king "},
        {"top_k": 3},
        {"ranking": "influence"},
        {"span": {"start": 0, "end": 3}},
        {"filter": {"owners": ["Anna"]}},
        {"opponents": False},
        {"explain": True},
        {"measurement": "margin"},
        {"measurement": "contrast", "alternative": "the queen"},
    ],
    ids=str,
)
def test_whatever_changes_an_answer_changes_its_key(change):
    first = AttributeRequest(**ASK)
    assert answer_key(SERVING, first) != answer_key(SERVING, AttributeRequest(**ASK | change))


def test_every_field_of_a_request_is_part_of_the_key():
    dumped = set(AttributeRequest(**ASK).model_dump())
    assert dumped == set(AttributeRequest.model_fields)


@pytest.mark.parametrize(
    "change",
    [
        {"index": SERVING.index.model_copy(update={"version": "000002-aaaaaaaaaaaa"})},
        {"index": SERVING.index.model_copy(update={"id": "other"})},
        {"weights_sha256": "x"},
        {"tokenizer_sha256": "x"},
        {"dtype": "bfloat16"},
        {"program": "2"},
    ],
    ids=str,
)
def test_whatever_answers_is_part_of_the_key(change):
    request = AttributeRequest(**ASK)
    other = SERVING.model_copy(update=change)
    assert answer_key(SERVING, request) != answer_key(other, request)


def test_the_order_of_a_filter_makes_no_difference():
    keys = {
        answer_key(SERVING, AttributeRequest(**ASK, filter={"owners": owners}))
        for owners in (["a", "b"], ["b", "a"], ["b", "a", "b"])
    }
    assert len(keys) == 1


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.binary(max_size=9)), max_size=50),
    st.integers(0, 20),
)
def test_memory_holds_the_last_used_within_its_bytes(operations, limit):
    async def scenario():
        cache, model = MemoryCache(limit), []  # the model: pairs, least recently used first
        for key, value in operations:
            held = dict(model)
            if value is None:
                assert await cache.get(key) == held.get(key)
                if key in held:
                    model = [p for p in model if p[0] != key] + [(key, held[key])]
                continue
            await cache.put(key, value)
            model = [p for p in model if p[0] != key] + [(key, value)]
            while sum(len(v) for _, v in model) > limit:
                model.pop(0)

    asyncio.run(scenario())


def test_replicas_share_what_is_in_redis(redis_url):
    async def scenario():
        first, second = RedisCache(redis_url, ttl_s=60), RedisCache(redis_url, ttl_s=60)
        assert await second.get("key") is None
        await first.put("key", b"value")
        assert await second.get("key") == b"value"
        await first.close()
        await second.close()

    run(scenario())


def test_a_dead_redis_is_a_miss_and_one_warning_and_comes_back(
    redis_server, redis_url, caplog, monkeypatch
):
    monkeypatch.setattr("service.shared._REST_S", 0.0)
    caplog.set_level(logging.WARNING)

    async def scenario():
        cache = RedisCache(redis_url, ttl_s=60)
        await cache.put("key", b"value")
        port = redis_server.port
        await asyncio.to_thread(redis_server.stop)
        for _ in range(3):
            assert await cache.get("key") is None
            await cache.put("key", b"value")
        assert len(caplog.records) == 1
        assert "every answer is computed" in caplog.text
        redis_server._desired_port = port
        await asyncio.to_thread(redis_server.start)
        assert await cache.get("key") is None
        await cache.put("key", b"value")
        assert await cache.get("key") == b"value"
        assert len(caplog.records) == 2
        await cache.close()

    run(scenario())


def test_a_redis_that_was_never_there_is_a_miss():
    async def scenario():
        cache = RedisCache("redis://127.0.0.1:1/0", ttl_s=60)
        assert await cache.get("key") is None
        await cache.put("key", b"value")
        await cache.close()

    run(scenario())


@pytest.fixture
def counted(tiny):
    """A cached attributor of a real engine, with the ids of the requests that reached the model."""
    reached = []

    class Counted(Engine):
        def attribute_many(self, asked):
            reached.extend(one.request_id for one in asked)
            return super().attribute_many(asked)

    def load():
        return Counted.load(tiny.index_dir, tiny.model_dir, device="cpu")

    return CachingAttributor(LocalAttributor(load, batch_tokens=1), MemoryCache(2**20)), reached


def with_attributor(counted, scenario):
    attributor, reached = counted

    async def whole():
        await attributor.start()
        await attributor.wait_loaded()
        reached.clear()
        await scenario(attributor)
        await attributor.close()

    run(whole())
    return reached


def test_an_answer_is_computed_once_and_says_so(counted):
    async def scenario(attributor):
        request = AttributeRequest(**ASK)
        first = await attributor.attribute(request, request_id="first")
        for number in range(100):
            again = await attributor.attribute(request, request_id=str(number))
            assert (again.cached, again.request_id) == (True, str(number))
            changing = {"cached", "request_id", "timings_ms"}
            assert again.model_dump(exclude=changing) == first.model_dump(exclude=changing)
        assert not first.cached

    assert with_attributor(counted, scenario) == ["first"]


def test_equal_requests_in_flight_are_computed_once(counted):
    async def scenario(attributor):
        request = AttributeRequest(**ASK)
        found = await asyncio.gather(
            *(attributor.attribute(request, request_id=str(number)) for number in range(20))
        )
        assert [one.request_id for one in found] == [str(number) for number in range(20)]
        assert [one.cached for one in found] == [False] + [True] * 19

    assert with_attributor(counted, scenario) == ["0"]


def test_who_leaves_does_not_take_the_answer_from_the_others(counted):
    async def scenario(attributor):
        asked = [
            asyncio.create_task(attributor.attribute(AttributeRequest(**ASK), request_id=str(n)))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        asked[0].cancel()
        assert (await asked[1]).request_id == "1"
        await asked[2]

    with_attributor(counted, scenario)


def test_when_all_have_left_nothing_is_computed(counted):
    async def scenario(attributor):
        asked = [
            asyncio.create_task(attributor.attribute(AttributeRequest(**ASK), request_id=str(n)))
            for n in range(3)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await attributor.attribute(AttributeRequest(**ASK | {"top_k": 1}), request_id="other")

    assert with_attributor(counted, scenario) == ["other"]


def test_an_error_is_not_kept(counted):
    async def scenario(attributor):
        long = AttributeRequest(prompt="who?", response="king " * 400)
        for _ in range(2):
            with pytest.raises(QueryTooLong):
                await attributor.attribute(long, request_id="long")

    with_attributor(counted, scenario)
