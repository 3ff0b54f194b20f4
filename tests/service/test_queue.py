"""Attribution by workers over a real Redis: what is promised, and what is when something dies."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from contextlib import asynccontextmanager, suppress

import pytest
from coredis import Redis

from influence import errors
from influence.errors import AttributionError, NotFound, NotReady, Overloaded, QueryTooLong
from influence.removal import Selection, remove_documents
from service.engine import Engine
from service.jobs import SET_ASIDE, Terms, error_from_wire, error_to_wire
from service.local import LocalAttributor
from service.queue import QueueAttributor
from service.schemas import AttributeRequest
from service.versions import ServedVersions
from service.worker import QueueWorker

TERMS = Terms(expire_s=60, dead_after_s=1.0)


def ask(prompt="who?", response="the king") -> AttributeRequest:
    return AttributeRequest(prompt=prompt, response=response, top_k=2)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 90))


@asynccontextmanager
async def working(load, redis_url, *, concurrency=8):
    """A worker in this process; its model, for a look at what reached it."""
    attributor = LocalAttributor(load)
    await attributor.start()
    await attributor.wait_loaded()
    worker = QueueWorker(attributor, redis_url, TERMS, concurrency=concurrency)
    task = asyncio.create_task(worker.run())
    try:
        yield attributor
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await attributor.close()


@asynccontextmanager
async def asking(redis_url, *, queue_size=64, worker=True):
    """A replica of the API without a model."""
    attributor = QueueAttributor(redis_url, TERMS, queue_size=queue_size)
    await attributor.start()
    if worker:
        await attributor.wait_loaded()
    try:
        yield attributor
    finally:
        await attributor.close()


def noting(tiny, work=lambda asked: None):
    """Loads an engine that notes its batches and does something before each."""
    batches: list[list[str]] = []

    class Noting(Engine):
        def attribute_many(self, asked):
            if asked[0].request_id != "warm-up":
                batches.append([one.request_id for one in asked])
                work(asked)
            return super().attribute_many(asked)

    return lambda: Noting.load(tiny.index_dir, tiny.model_dir, device="cpu"), batches


@pytest.fixture
def until_set():
    """What a worker waits for, and what lets it end whatever the test does."""
    event = threading.Event()
    yield event
    event.set()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def test_answers_documents_and_errors_are_those_of_the_engine(tiny, engine, redis_url):
    async def scenario():
        async with working(tiny.engine, redis_url), asking(redis_url) as attributor:
            found = await attributor.attribute(ask(), request_id="x")
            changing = {"timings_ms"}
            expected = engine.attribute(ask(), request_id="x")
            assert found.model_dump(exclude=changing) == expected.model_dump(exclude=changing)
            assert await attributor.document("shelf/1") == engine.document("shelf/1")
            assert await attributor.info() == engine.info()
            assert attributor.serving == engine.serving
            with pytest.raises(QueryTooLong, match="256"):
                await attributor.attribute(ask(response="king " * 400), request_id="y")
            with pytest.raises(NotFound, match="nothing"):
                await attributor.document("nothing")

    run(scenario())


def test_jobs_go_through_the_model_together(tiny, redis_url):
    load, batches = noting(tiny, lambda asked: time.sleep(0.3))

    async def scenario():
        async with working(load, redis_url), asking(redis_url) as attributor:
            asked = (attributor.attribute(ask(), request_id=str(n)) for n in range(9))
            found = await asyncio.gather(*asked)
            assert [one.request_id for one in found] == [str(n) for n in range(9)]

    run(scenario())
    assert len(batches) <= 4


def test_who_leaves_takes_the_job_along_before_it_reaches_the_model(tiny, redis_url):
    load, batches = noting(tiny, lambda asked: time.sleep(0.5))

    async def scenario():
        async with (
            working(load, redis_url, concurrency=1),  # the others wait in Redis
            asking(redis_url) as attributor,
        ):
            first = asyncio.create_task(attributor.attribute(ask(), request_id="first"))
            await until(lambda: batches)
            leaving = asyncio.create_task(attributor.attribute(ask(), request_id="leaving"))
            await asyncio.sleep(0.2)
            leaving.cancel()
            await first
            await attributor.attribute(ask(), request_id="last")

    run(scenario())
    assert batches == [["first"], ["last"]]


def test_all_answers_of_a_replica_come_on_one_connection_each_to_its_own(tiny, redis_url):
    load, batches = noting(tiny, lambda asked: time.sleep(0.5))

    async def scenario():
        async with (
            working(load, redis_url),
            asking(redis_url) as first,
            asking(redis_url) as second,
            Redis.from_url(redis_url, decode_responses=True) as redis,
        ):
            asked = [
                asyncio.ensure_future(replica.attribute(ask(), request_id=f"{name}{n}"))
                for n in range(4)
                for name, replica in (("first", first), ("second", second))
            ]
            await until(lambda: batches)
            clients = await redis.client_list()
            listening = [one for one in clients if int(one["psub"]) or int(one["sub"])]
            assert len(listening) == 2
            found = [one.request_id for one in await asyncio.gather(*asked)]
            assert found == [f"{name}{n}" for n in range(4) for name in ("first", "second")]

    run(scenario())


def test_a_subscription_that_was_cut_off_is_there_again(tiny, redis_url, monkeypatch):
    monkeypatch.setattr("service.queue._LOOK_AGAIN_S", 1e6)  # no answer is found without one

    async def scenario():
        async with (
            working(tiny.engine, redis_url),
            asking(redis_url) as attributor,
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
            found = await attributor.attribute(ask(), request_id="x")
            assert found.request_id == "x"

    run(scenario())


def test_an_answer_that_came_while_nobody_listened_is_found(tiny, redis_url, until_set):
    """The worker still works: all there is is what Redis keeps."""
    load, batches = noting(tiny, lambda asked: until_set.wait(30))
    kept = {"s": True, "r": {"error": error_to_wire(NotFound("Kept. Look."))}}

    async def scenario():
        async with (
            working(load, redis_url),
            asking(redis_url) as attributor,
            Redis.from_url(redis_url, decode_responses=True) as redis,
        ):
            asked = asyncio.ensure_future(attributor.attribute(ask(), request_id="x"))
            await until(lambda: batches)
            (job,) = await redis.keys("streaq:whence:task:data:*")
            await redis.set(job.replace("data", "results"), json.dumps(kept))
            with pytest.raises(NotFound, match="Kept"):
                await asked
            until_set.set()

    run(scenario())


def test_one_who_waits_long_looks_again_and_has_nothing_computed_twice(
    tiny, redis_url, monkeypatch
):
    monkeypatch.setattr("service.queue._LOOK_AGAIN_S", 0.05)
    load, batches = noting(tiny, lambda asked: time.sleep(0.5))

    async def scenario():
        async with working(load, redis_url), asking(redis_url) as attributor:
            await attributor.attribute(ask(), request_id="x")

    run(scenario())
    assert batches == [["x"]]


def test_an_answer_comes_at_once(tiny, redis_url):
    """coredis spends a tenth of a second on the end of a subscription."""

    async def scenario():
        async with working(tiny.engine, redis_url), asking(redis_url) as attributor:
            took = []
            for _ in range(9):
                begun = time.perf_counter()
                await attributor.document("shelf/1")
                took.append(time.perf_counter() - begun)
            assert sorted(took)[4] < 0.1

    run(scenario())


def test_a_full_queue_refuses_and_says_when_to_come_back(tiny, redis_url):
    load, batches = noting(tiny, lambda asked: time.sleep(0.5))

    async def scenario():
        async with working(load, redis_url), asking(redis_url, queue_size=1) as attributor:
            first = asyncio.create_task(attributor.attribute(ask(), request_id="first"))
            await until(lambda: batches)
            with pytest.raises(Overloaded) as caught:
                await attributor.attribute(ask(), request_id="second")
            assert caught.value.retry_after_s >= 1
            await first

    run(scenario())


def test_requests_that_come_at_once_do_not_overfill_the_queue(tiny, redis_url):
    """Each would find it empty in Redis."""
    load, _ = noting(tiny, lambda asked: time.sleep(0.5))

    async def scenario():
        async with working(load, redis_url), asking(redis_url, queue_size=2) as attributor:
            asked = (attributor.attribute(ask(), request_id=str(n)) for n in range(10))
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(one, Overloaded) for one in found) == 8
            assert all(one.retry_after_s >= 1 for one in found if isinstance(one, Overloaded))
            assert {one.request_id for one in found if not isinstance(one, Overloaded)} == {
                "0",
                "1",
            }

    run(scenario())


def test_without_a_worker_or_a_redis_it_is_not_ready(redis_url):
    async def scenario(url):
        async with asking(url, worker=False) as attributor:
            await asyncio.sleep(0.2)
            assert not attributor.ready
            for call in (attributor.check_ready(), attributor.attribute(ask(), request_id="x")):
                with pytest.raises(NotReady, match="No worker is there") as caught:
                    await call
                assert caught.value.retry_after_s

    run(scenario(redis_url))
    run(scenario("redis://127.0.0.1:1/0"))


def child_worker(tiny, redis_url, work):
    """What a worker process does, with something before each batch."""
    load, _ = noting(tiny, work)

    async def whole():
        attributor = LocalAttributor(load)
        await attributor.start()
        await attributor.wait_loaded()
        await QueueWorker(attributor, redis_url, TERMS, concurrency=8).run()
        await attributor.close()

    return lambda: asyncio.run(whole())


def test_kill_9_of_a_worker_loses_no_request(tiny, redis_url, start_in_child, tmp_path):
    start, end = start_in_child
    mark = tmp_path / "entered"

    def hang(_asked):
        mark.touch()
        time.sleep(60)

    child, words = start(child_worker(tiny, redis_url, hang))
    load, batches = noting(tiny)

    async def scenario():
        async with asking(redis_url) as attributor:
            asked = [
                asyncio.create_task(attributor.attribute(ask(), request_id=str(n)))
                for n in range(3)
            ]
            await until(mark.exists)
            os.kill(child, signal.SIGKILL)
            async with working(load, redis_url):
                found = await asyncio.gather(*asked)
            assert [one.request_id for one in found] == ["0", "1", "2"]

    run(scenario())
    assert end(child, words)[0] == -signal.SIGKILL
    assert sorted(n for batch in batches for n in batch) == ["0", "1", "2"]  # each once more


def test_a_job_that_ends_two_workers_is_set_aside_with_its_cause(tiny, redis_url, start_in_child):
    start, end = start_in_child

    def die(_asked):
        os._exit(9)

    workers = [start(child_worker(tiny, redis_url, die)) for _ in range(2)]
    load, batches = noting(tiny)

    async def scenario():
        async with asking(redis_url) as attributor:
            poison = asyncio.create_task(attributor.attribute(ask("poison?"), request_id="p"))
            for child, words in workers:
                assert (await asyncio.to_thread(end, child, words))[0] == 9
            async with working(load, redis_url), Redis.from_url(redis_url) as redis:
                with pytest.raises(AttributionError, match="could not be computed"):
                    await poison
                (entry,) = await redis.lrange(SET_ASIDE, 0, -1)
                assert json.loads(entry)["content"]["request"]["prompt"] == "poison?"
                assert "2 workers ended" in json.loads(entry)["cause"]
                await attributor.attribute(ask(), request_id="after")

    run(scenario())
    assert batches == [["after"]]  # no third worker computed it


def test_a_bug_is_set_aside_with_its_traceback_and_not_tried_again(tiny, redis_url, caplog):
    def broken(_asked):
        raise ZeroDivisionError

    load, batches = noting(tiny, broken)

    async def scenario():
        async with (
            working(load, redis_url),
            asking(redis_url) as attributor,
            Redis.from_url(redis_url) as redis,
        ):
            with pytest.raises(AttributionError, match="could not be computed"):
                await attributor.attribute(ask(), request_id="x")
            (entry,) = await redis.lrange(SET_ASIDE, 0, -1)
            assert "ZeroDivisionError" in json.loads(entry)["cause"]

    run(scenario())
    assert batches == [["x"]]


def test_sigterm_lets_a_worker_finish_what_it_has_begun(tiny, redis_url, start_in_child, tmp_path):
    start, end = start_in_child
    mark = tmp_path / "entered"

    def slow(_asked):
        mark.touch()
        time.sleep(0.5)

    child, words = start(child_worker(tiny, redis_url, slow))

    async def scenario():
        async with asking(redis_url) as attributor:
            asked = asyncio.create_task(attributor.attribute(ask(), request_id="x"))
            await until(mark.exists)
            os.kill(child, signal.SIGTERM)
            assert (await asked).request_id == "x"

    run(scenario())
    assert end(child, words) == (0, "")


async def patient(attributor, number):
    """As a client that comes back when it is told to, where its request was not accepted."""
    while True:
        try:
            return await attributor.attribute(ask(), request_id=str(number))
        except NotReady:
            await asyncio.sleep(0.1)


def test_redis_killed_and_started_again_empty_under_load_loses_no_request(
    tiny, redis_server, redis_url, caplog
):
    load, batches = noting(tiny, lambda asked: time.sleep(0.05))

    async def scenario():
        async with working(load, redis_url, concurrency=2), asking(redis_url) as attributor:
            asked = [asyncio.create_task(patient(attributor, n)) for n in range(12)]
            await until(lambda: batches)
            port = redis_server.port
            redis_server._process.kill()
            redis_server._process.wait()
            redis_server._process = None
            await asyncio.sleep(0.5)
            redis_server._desired_port = port
            await asyncio.to_thread(redis_server.start)
            found = await asyncio.gather(*asked)
            assert [one.request_id for one in found] == [str(n) for n in range(12)]
            await patient(attributor, "after")

    run(scenario())


@pytest.mark.parametrize(
    "kind",
    [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, AttributionError)
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_error_is_the_same_on_the_other_side(kind):
    error = kind.__new__(kind, "What happened. What to do.")
    error.args = ("What happened. What to do.",)
    with suppress(AttributeError):
        error.retry_after_s = 3
    back = error_from_wire(json.loads(json.dumps(error_to_wire(error))))
    assert type(back) is kind
    assert str(back) == "What happened. What to do."
    assert getattr(back, "retry_after_s", 3) == 3


def test_an_error_that_only_the_other_side_knows_is_still_one_of_ours():
    wire = {"kind": "FromTheFuture", "message": "What happened.", "retry_after_s": None}
    assert type(error_from_wire(wire)) is AttributionError
    assert type(error_from_wire(wire | {"kind": "json"})) is AttributionError


def test_a_worker_follows_its_index_and_replicas_answer_with_what_it_serves(
    tiny, redis_url, tmp_path
):
    folder = shutil.copytree(tiny.index_dir, tmp_path / "library")

    async def scenario():
        load = lambda: Engine.load(folder, tiny.model_dir, device="cpu")  # noqa: E731
        async with working(load, redis_url) as local, asking(redis_url) as replica:
            versions = ServedVersions(folder, local, follow_s=0.05)
            await versions.start()
            first = (await replica.attribute(ask(), request_id="a")).index.version
            removed = await asyncio.to_thread(
                remove_documents, folder, Selection(documents=("shelf/1",))
            )
            while (await replica.info()).index.version != removed.version:
                await replica.attribute(ask(), request_id="b")
            assert removed.version != first
            assert (await replica.attribute(ask(), request_id="c")).index.version != first
            with pytest.raises(NotFound):
                await replica.document("shelf/1")
            await versions.close()

    run(scenario())
