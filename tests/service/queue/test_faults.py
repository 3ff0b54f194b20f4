"""What is when a worker dies, or Redis."""

import asyncio
import json
import os
import signal
import time

import pytest
from coredis import Redis

from influence.errors import AttributionError, NotReady
from service.jobs import SET_ASIDE
from service.local import LocalAttributor
from service.worker import QueueWorker


@pytest.fixture
def child_worker(split):
    """What a worker process does, with something before each batch."""

    def make(work):
        load, _ = split.noting(work)

        async def whole():
            attributor = LocalAttributor(load)
            await attributor.start()
            await attributor.wait_loaded()
            await QueueWorker(attributor, split.redis_url, split.terms, concurrency=8).run()
            await attributor.close()

        return lambda: asyncio.run(whole())

    return make


async def patient(attributor, request, number):
    """As a client that comes back when it is told to, where its request was not accepted."""
    while True:
        try:
            return await attributor.attribute(request, request_id=str(number))
        except NotReady:
            await asyncio.sleep(0.1)


def test_kill_9_of_a_worker_loses_no_request(split, start_in_child, tmp_path, child_worker):
    start, end = start_in_child
    mark = tmp_path / "entered"

    def hang(_asked):
        mark.touch()
        time.sleep(60)

    child, words = start(child_worker(hang))
    load, batches = split.noting()

    async def scenario():
        async with split.asking() as attributor:
            asked = [
                asyncio.create_task(attributor.attribute(split.ask(), request_id=str(n)))
                for n in range(3)
            ]
            await split.until(mark.exists)
            os.kill(child, signal.SIGKILL)
            async with split.working(load):
                found = await asyncio.gather(*asked)
            assert [one.request_id for one in found] == ["0", "1", "2"]

    split.run(scenario())
    assert end(child, words)[0] == -signal.SIGKILL
    assert sorted(n for batch in batches for n in batch) == ["0", "1", "2"]  # each once more


def test_a_job_that_ends_two_workers_is_set_aside_with_its_cause(
    split, redis_url, start_in_child, child_worker
):
    start, end = start_in_child

    def die(_asked):
        os._exit(9)

    workers = [start(child_worker(die)) for _ in range(2)]
    load, batches = split.noting()

    async def scenario():
        async with split.asking() as attributor:
            poison = asyncio.create_task(attributor.attribute(split.ask("poison?"), request_id="p"))
            for child, words in workers:
                assert (await asyncio.to_thread(end, child, words))[0] == 9
            async with split.working(load), Redis.from_url(redis_url) as redis:
                with pytest.raises(AttributionError, match="could not be computed"):
                    await poison
                (entry,) = await redis.lrange(SET_ASIDE, 0, -1)
                assert json.loads(entry)["content"]["request"]["prompt"] == "poison?"
                assert "2 workers ended" in json.loads(entry)["cause"]
                await attributor.attribute(split.ask(), request_id="after")

    split.run(scenario())
    assert batches == [["after"]]  # no third worker computed it


def test_a_bug_is_set_aside_with_its_traceback_and_not_tried_again(split, redis_url, caplog):
    def broken(_asked):
        raise ZeroDivisionError

    load, batches = split.noting(broken)

    async def scenario():
        async with (
            split.working(load),
            split.asking() as attributor,
            Redis.from_url(redis_url) as redis,
        ):
            with pytest.raises(AttributionError, match="could not be computed"):
                await attributor.attribute(split.ask(), request_id="x")
            (entry,) = await redis.lrange(SET_ASIDE, 0, -1)
            assert "ZeroDivisionError" in json.loads(entry)["cause"]

    split.run(scenario())
    assert batches == [["x"]]


def test_sigterm_lets_a_worker_finish_what_it_has_begun(
    split, start_in_child, tmp_path, child_worker
):
    start, end = start_in_child
    mark = tmp_path / "entered"

    def slow(_asked):
        mark.touch()
        time.sleep(0.5)

    child, words = start(child_worker(slow))

    async def scenario():
        async with split.asking() as attributor:
            asked = asyncio.create_task(attributor.attribute(split.ask(), request_id="x"))
            await split.until(mark.exists)
            os.kill(child, signal.SIGTERM)
            assert (await asked).request_id == "x"

    split.run(scenario())
    assert end(child, words) == (0, "")


def test_redis_killed_and_started_again_empty_under_load_loses_no_request(
    split, redis_server, caplog
):
    load, batches = split.noting(lambda asked: time.sleep(0.05))

    async def scenario():
        async with split.working(load, concurrency=2), split.asking() as attributor:
            asked = [asyncio.create_task(patient(attributor, split.ask(), n)) for n in range(12)]
            await split.until(lambda: batches)
            port = redis_server.port
            redis_server._process.kill()
            redis_server._process.wait()
            redis_server._process = None
            await asyncio.sleep(0.5)
            redis_server._desired_port = port
            await asyncio.to_thread(redis_server.start)
            found = await asyncio.gather(*asked)
            assert [one.request_id for one in found] == [str(n) for n in range(12)]
            await patient(attributor, split.ask(), "after")

    split.run(scenario())
