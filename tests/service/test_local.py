"""The queue, with the real engine; where a test needs it to be slow, its worker is held up."""

import asyncio
import os
import sys
import threading

import pytest

from influence.errors import IndexUnavailable, NotReady, Overloaded, QueryTooLong
from service.engine import Engine
from service.local import LocalAttributor
from service.schemas import AttributeRequest

REQUEST = AttributeRequest(prompt="who?", response="the king", top_k=1)


class Gate:
    """Makes an engine that answers only while the gate is open."""

    def __init__(self, tiny) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self.asked: list[str] = []
        gate = self

        class HeldUp(Engine):
            def attribute_many(self, asked):
                ids = [one.request_id for one in asked]
                if ids != ["warm-up"]:
                    gate.asked += ids
                    gate.entered.set()
                    assert gate.open.wait(20)
                return super().attribute_many(asked)

        self.load = lambda: HeldUp.load(tiny.index_dir, tiny.model_dir, device="cpu")


@pytest.fixture
def gate(tiny):
    gate = Gate(tiny)
    yield gate
    gate.open.set()


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def test_answers_are_those_of_the_engine(tiny, engine):
    async def scenario():
        attributor = LocalAttributor(tiny.engine, queue_size=5, batch_tokens=1)
        await attributor.start()
        await attributor.wait_loaded()
        found = await asyncio.gather(
            *(attributor.attribute(REQUEST, request_id=str(number)) for number in range(5))
        )
        document = await attributor.document("shelf/1")
        info = await attributor.info()
        await attributor.close()
        return found, document, info

    found, document, info = run(scenario())
    expected = engine.attribute(REQUEST, request_id="0")
    assert [one.request_id for one in found] == ["0", "1", "2", "3", "4"]
    assert all(one.proponents == expected.proponents for one in found)
    assert found[4].timings_ms.queue > found[0].timings_ms.queue >= 0
    assert document == engine.document("shelf/1")
    assert info == engine.info()


def test_the_model_gives_way_to_whoever_answers(tiny):
    """And the event loop, which is in this thread, does not. Elsewhere than on Linux, where a
    priority is that of the whole process, nobody's changes."""

    async def scenario():
        own, nice_of_the_model = os.nice(0), []
        attributor = LocalAttributor(lambda: nice_of_the_model.append(os.nice(0)) or tiny.engine())
        await attributor.start()
        await attributor.wait_loaded()
        await attributor.close()
        assert nice_of_the_model == [min(own + 5, 19) if sys.platform == "linux" else own]
        assert os.nice(0) == own

    run(scenario())


def test_it_is_not_ready_before_it_is_loaded(tiny):
    started = threading.Event()

    def load():
        started.wait(20)
        return tiny.engine()

    async def scenario():
        attributor = LocalAttributor(load, queue_size=1)
        await attributor.start()
        assert not attributor.ready
        for call in (
            attributor.check_ready(),
            attributor.attribute(REQUEST, request_id="x"),
            attributor.document("shelf/1"),
            attributor.info(),
        ):
            with pytest.raises(NotReady, match="being loaded") as caught:
                await call
            assert caught.value.retry_after_s
        started.set()
        await attributor.wait_loaded()
        assert attributor.ready
        await attributor.check_ready()
        await attributor.close()
        assert not attributor.ready

    run(scenario())


def test_what_ended_loading_is_what_requests_are_told(tmp_path):
    async def scenario():
        attributor = LocalAttributor(lambda: Engine.load(tmp_path), queue_size=1)
        await attributor.start()
        with pytest.raises(IndexUnavailable, match="There is no index"):
            await attributor.wait_loaded()
        with pytest.raises(IndexUnavailable, match="There is no index"):
            await attributor.attribute(REQUEST, request_id="x")
        await attributor.close()

    run(scenario())


def test_a_bug_while_loading_is_logged_and_told(caplog):
    async def scenario():
        attributor = LocalAttributor(lambda: 1 / 0, queue_size=1)  # type: ignore[arg-type]
        await attributor.start()
        with pytest.raises(NotReady, match="ZeroDivisionError"):
            await attributor.wait_loaded()
        await attributor.close()

    run(scenario())
    assert "loading failed" in caplog.text


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(gate):
    async def scenario():
        attributor = LocalAttributor(gate.load, queue_size=2)
        await attributor.start()
        await attributor.wait_loaded()
        accepted = [asyncio.create_task(attributor.attribute(REQUEST, request_id="0"))]
        await asyncio.to_thread(gate.entered.wait, 20)  # it is computed, and two may wait
        accepted += [
            asyncio.create_task(attributor.attribute(REQUEST, request_id=str(number)))
            for number in (1, 2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests are waiting") as caught:
            await attributor.attribute(REQUEST, request_id="too many")
        assert caught.value.retry_after_s >= 1
        gate.open.set()
        assert [one.request_id for one in await asyncio.gather(*accepted)] == ["0", "1", "2"]
        await attributor.attribute(REQUEST, request_id="after")  # there is room again
        await attributor.close()

    run(scenario())
    assert gate.asked == ["0", "1", "2", "after"]


def test_a_failed_or_cancelled_request_gives_its_place_back(gate):
    async def scenario():
        attributor = LocalAttributor(gate.load, queue_size=1)
        await attributor.start()
        await attributor.wait_loaded()
        long = AttributeRequest(prompt="who?", response="king " * 400)
        gate.open.set()
        for _ in range(5):
            with pytest.raises(QueryTooLong):
                await attributor.attribute(long, request_id="long")
        gate.open.clear()
        gate.entered.clear()
        first = asyncio.create_task(attributor.attribute(REQUEST, request_id="first"))
        await asyncio.to_thread(gate.entered.wait, 20)
        for _ in range(5):
            waiting = asyncio.create_task(attributor.attribute(REQUEST, request_id="cancelled"))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        gate.open.set()
        await first
        await attributor.close()

    run(scenario())
    assert "cancelled" not in gate.asked  # it never reached the model


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(gate):
    async def scenario():
        attributor = LocalAttributor(gate.load, queue_size=3)
        await attributor.start()
        await attributor.wait_loaded()
        accepted = [
            asyncio.create_task(attributor.attribute(REQUEST, request_id=str(number)))
            for number in range(3)
        ]
        await asyncio.to_thread(gate.entered.wait, 20)
        closing = asyncio.create_task(attributor.close())
        await asyncio.sleep(0.01)
        with pytest.raises(NotReady, match="shutting down"):
            await attributor.attribute(REQUEST, request_id="late")
        gate.open.set()
        found = await asyncio.gather(*accepted)
        await closing
        return found

    assert len(run(scenario())) == 3


def test_the_event_loop_stays_free_while_the_model_works(gate):
    async def scenario():
        attributor = LocalAttributor(gate.load, queue_size=1)
        await attributor.start()
        await attributor.wait_loaded()
        asked = asyncio.create_task(attributor.attribute(REQUEST, request_id="x"))
        await asyncio.to_thread(gate.entered.wait, 20)
        document = await attributor.document("shelf/1")  # answered while the model is held up
        assert not asked.done()
        gate.open.set()
        await asked
        await attributor.close()
        return document

    assert run(scenario()).id == "shelf/1"
