"""What a replica of the API promises its callers, over a real Redis."""

import asyncio
import shutil
import time

import pytest

from influence.errors import NotFound, NotReady, Overloaded, QueryTooLong
from influence.removal import Selection, remove_documents
from service.engine import Engine
from service.versions import ServedVersions


def test_answers_documents_and_errors_are_those_of_the_engine(split, tiny, engine):
    async def scenario():
        async with split.working(tiny.engine), split.asking() as attributor:
            found = await attributor.attribute(split.ask(), request_id="x")
            changing = {"timings_ms"}
            expected = engine.attribute(split.ask(), request_id="x")
            assert found.model_dump(exclude=changing) == expected.model_dump(exclude=changing)
            assert await attributor.document("shelf/1") == engine.document("shelf/1")
            assert await attributor.info() == engine.info()
            assert attributor.serving == engine.serving
            with pytest.raises(QueryTooLong, match="256"):
                await attributor.attribute(split.ask(response="king " * 400), request_id="y")
            with pytest.raises(NotFound, match="nothing"):
                await attributor.document("nothing")

    split.run(scenario())


def test_jobs_go_through_the_model_together(split):
    load, batches = split.noting(lambda asked: time.sleep(0.3))

    async def scenario():
        async with split.working(load), split.asking() as attributor:
            asked = (attributor.attribute(split.ask(), request_id=str(n)) for n in range(9))
            found = await asyncio.gather(*asked)
            assert [one.request_id for one in found] == [str(n) for n in range(9)]

    split.run(scenario())
    assert len(batches) <= 4


def test_who_leaves_takes_the_job_along_before_it_reaches_the_model(split):
    load, batches = split.noting(lambda asked: time.sleep(0.5))

    async def scenario():
        async with (
            split.working(load, concurrency=1),  # the others wait in Redis
            split.asking() as attributor,
        ):
            first = asyncio.create_task(attributor.attribute(split.ask(), request_id="first"))
            await split.until(lambda: batches)
            leaving = asyncio.create_task(attributor.attribute(split.ask(), request_id="leaving"))
            await asyncio.sleep(0.2)
            leaving.cancel()
            await first
            await attributor.attribute(split.ask(), request_id="last")

    split.run(scenario())
    assert batches == [["first"], ["last"]]


def test_a_full_queue_refuses_and_says_when_to_come_back(split):
    load, batches = split.noting(lambda asked: time.sleep(0.5))

    async def scenario():
        async with split.working(load), split.asking(queue_size=1) as attributor:
            first = asyncio.create_task(attributor.attribute(split.ask(), request_id="first"))
            await split.until(lambda: batches)
            with pytest.raises(Overloaded) as caught:
                await attributor.attribute(split.ask(), request_id="second")
            assert caught.value.retry_after_s >= 1
            await first

    split.run(scenario())


def test_requests_that_come_at_once_do_not_overfill_the_queue(split):
    """Each would find it empty in Redis."""
    load, _ = split.noting(lambda asked: time.sleep(0.5))

    async def scenario():
        async with split.working(load), split.asking(queue_size=2) as attributor:
            asked = (attributor.attribute(split.ask(), request_id=str(n)) for n in range(10))
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert sum(isinstance(one, Overloaded) for one in found) == 8
            assert all(one.retry_after_s >= 1 for one in found if isinstance(one, Overloaded))
            assert {one.request_id for one in found if not isinstance(one, Overloaded)} == {
                "0",
                "1",
            }

    split.run(scenario())


def test_without_a_worker_or_a_redis_it_is_not_ready(split, redis_url):
    async def scenario(url):
        async with split.asking(url, worker=False) as attributor:
            await asyncio.sleep(0.2)
            assert not attributor.ready
            for call in (
                attributor.check_ready(),
                attributor.attribute(split.ask(), request_id="x"),
            ):
                with pytest.raises(NotReady, match="No worker is there") as caught:
                    await call
                assert caught.value.retry_after_s

    split.run(scenario(redis_url))
    split.run(scenario("redis://127.0.0.1:1/0"))


def test_a_worker_follows_its_index_and_replicas_answer_with_what_it_serves(split, tiny, tmp_path):
    folder = shutil.copytree(tiny.index_dir, tmp_path / "library")

    async def scenario():
        load = lambda: Engine.load(folder, tiny.model_dir, device="cpu")  # noqa: E731
        async with split.working(load) as local, split.asking() as replica:
            versions = ServedVersions(folder, local, follow_s=0.05)
            await versions.start()
            first = (await replica.attribute(split.ask(), request_id="a")).index.version
            removed = await asyncio.to_thread(
                remove_documents, folder, Selection(documents=("shelf/1",))
            )
            while (await replica.info()).index.version != removed.version:
                await replica.attribute(split.ask(), request_id="b")
            assert removed.version != first
            assert (await replica.attribute(split.ask(), request_id="c")).index.version != first
            with pytest.raises(NotFound):
                await replica.document("shelf/1")
            await versions.close()

    split.run(scenario())
