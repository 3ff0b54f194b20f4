"""How answers come back: by one subscription, and by looking where it missed them."""

import asyncio
import json
import threading
import time

import pytest
from coredis import Redis

from influence.errors import NotFound
from service.jobs import error_to_wire


@pytest.fixture
def until_set():
    """What a worker waits for, and what lets it end whatever the test does."""
    event = threading.Event()
    yield event
    event.set()


def test_all_answers_of_a_replica_come_on_one_connection_each_to_its_own(split, redis_url):
    load, batches = split.noting(lambda asked: time.sleep(0.5))

    async def scenario():
        async with (
            split.working(load),
            split.asking() as first,
            split.asking() as second,
            Redis.from_url(redis_url, decode_responses=True) as redis,
        ):
            asked = [
                asyncio.ensure_future(replica.attribute(split.ask(), request_id=f"{name}{n}"))
                for n in range(4)
                for name, replica in (("first", first), ("second", second))
            ]
            await split.until(lambda: batches)
            clients = await redis.client_list()
            listening = [one for one in clients if int(one["psub"]) or int(one["sub"])]
            assert len(listening) == 2
            found = [one.request_id for one in await asyncio.gather(*asked)]
            assert found == [f"{name}{n}" for n in range(4) for name in ("first", "second")]

    split.run(scenario())


def test_a_subscription_that_was_cut_off_is_there_again(split, tiny, redis_url, monkeypatch):
    monkeypatch.setattr("service.queue._LOOK_AGAIN_S", 1e6)  # no answer is found without one

    async def scenario():
        async with (
            split.working(tiny.engine),
            split.asking() as attributor,
            Redis.from_url(redis_url, decode_responses=True) as redis,
        ):

            async def listening():
                return {one["id"] for one in await redis.client_list() if int(one["psub"])}

            cut_off = await listening()
            assert len(cut_off) == 1
            for one in cut_off:
                await redis.client_kill(identifier=int(one))
            while len(await listening() - cut_off) != 1:
                await asyncio.sleep(0.01)
            found = await attributor.attribute(split.ask(), request_id="x")
            assert found.request_id == "x"

    split.run(scenario())


def test_an_answer_that_came_while_nobody_listened_is_found(split, redis_url, until_set):
    """The worker still works: all there is is what Redis keeps."""
    load, batches = split.noting(lambda asked: until_set.wait(30))
    kept = {"s": True, "r": {"error": error_to_wire(NotFound("Kept. Look."))}}

    async def scenario():
        async with (
            split.working(load),
            split.asking() as attributor,
            Redis.from_url(redis_url, decode_responses=True) as redis,
        ):
            asked = asyncio.ensure_future(attributor.attribute(split.ask(), request_id="x"))
            await split.until(lambda: batches)
            (job,) = await redis.keys("streaq:whence:task:data:*")
            await redis.set(job.replace("data", "results"), json.dumps(kept))
            with pytest.raises(NotFound, match="Kept"):
                await asked
            until_set.set()

    split.run(scenario())


def test_one_who_waits_long_looks_again_and_has_nothing_computed_twice(split, monkeypatch):
    monkeypatch.setattr("service.queue._LOOK_AGAIN_S", 0.05)
    load, batches = split.noting(lambda asked: time.sleep(0.5))

    async def scenario():
        async with split.working(load), split.asking() as attributor:
            await attributor.attribute(split.ask(), request_id="x")

    split.run(scenario())
    assert batches == [["x"]]


def test_an_answer_comes_at_once(split, tiny):
    """coredis spends a tenth of a second on the end of a subscription."""

    async def scenario():
        async with split.working(tiny.engine), split.asking() as attributor:
            took = []
            for _ in range(9):
                begun = time.perf_counter()
                await attributor.document("shelf/1")
                took.append(time.perf_counter() - begun)
            assert sorted(took)[4] < 0.1

    split.run(scenario())
