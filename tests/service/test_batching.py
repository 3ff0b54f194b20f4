"""Lanes, turns and budgets, with a model that only notes what it was given."""

import asyncio
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batching import Batcher, Lanes, Size, Waiting

SHORT, LONG = Size(1, 40), Size(1, 1000)


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


class Model:
    """Answers a batch with its own work when it is let go; notes the batches."""

    def __init__(self, **settings) -> None:
        self.batches: list[list] = []
        self.go = asyncio.Event()
        self.go.set()
        settings = {"batch_tokens": 1000, "max_wait_s": 0.0} | settings
        self.batcher: Batcher = Batcher(self._compute, **settings)

    async def _compute(self, batch):
        self.batches.append(list(batch))
        await self.go.wait()
        return batch

    def ask(self, *works, size: Size = SHORT):
        return [asyncio.create_task(self.batcher.submit(work, size)) for work in works]

    async def end(self, running):
        self.batcher.close()
        await running


def with_model(scenario, **settings) -> Model:
    async def whole():
        model = Model(**settings)
        running = asyncio.create_task(model.batcher.run())
        await scenario(model)
        await model.end(running)
        return model

    return run(whole())


def held_up(model):
    """Let one request occupy the model; what comes now waits."""

    async def begin():
        model.go.clear()
        first = model.ask("first")
        while not model.batches:
            await asyncio.sleep(0)
        return first

    return begin()


sizes = st.builds(Size, st.integers(1, 3), st.integers(1, 3000))


@given(st.lists(sizes, max_size=60), st.integers(1, 4000))
def test_every_request_goes_once_in_batches_within_the_budget(sizes, budget):
    lanes: Lanes = Lanes(budget)
    for number, size in enumerate(sizes):
        lanes.add(Waiting(number, size, None, float(number)))  # type: ignore[arg-type]
    taken = []
    while batch := lanes.take():
        longest = max(item.size.longest for item in batch)
        rows = sum(item.size.rows for item in batch)
        assert len(batch) == 1 or rows * longest <= budget
        # Half of the computed tokens are real ones: a lane's lengths are within a factor of two.
        assert all(max(item.size.longest, 64) * 2 > longest for item in batch)
        taken.append(batch)
    assert sorted(item.work for batch in taken for item in batch) == list(range(len(sizes)))
    in_order = [item for batch in taken for item in batch]
    for lane in {size.lane for size in sizes}:
        numbers = [item.work for item in in_order if item.size.lane == lane]
        assert all(a < b for a, b in pairwise(numbers))  # within a lane: first come, first gone
    assert len(lanes) == 0


def test_a_short_request_waits_for_one_batch_of_long_ones_at_most():
    async def scenario(model):
        first = await held_up(model)
        long = model.ask(*(f"long {n}" for n in range(20)), size=LONG)
        short = model.ask("short")
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(*first, *long, *short)

    batches = with_model(scenario).batches
    assert ["short"] in batches[:3]  # behind the one that was computed, and one long one


def test_a_long_request_is_served_while_short_ones_keep_coming():
    async def scenario(model):
        first = await held_up(model)
        short = model.ask(*range(200))
        long = model.ask("long", size=LONG)
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(*first, *short, *long)

    batches = with_model(scenario).batches
    assert batches[-1] != ["long"]
    assert ["long"] in batches[:3]


def test_requests_that_come_while_the_model_works_go_together():
    async def scenario(model):
        first = await held_up(model)
        rest = model.ask(*range(10))
        await asyncio.sleep(0)
        model.go.set()
        assert await asyncio.gather(*rest) == list(range(10))
        await asyncio.gather(*first)

    assert with_model(scenario).batches == [["first"], list(range(10))]


FOREVER = 1e6  # times what the last batch took


def test_callers_that_ask_again_at_once_go_with_those_who_waited_meanwhile(monkeypatch):
    """Else four and four would take turns for as long as they ask."""
    monkeypatch.setattr("service.batching._FOR_RETURNS", FOREVER)

    async def scenario(model):
        async def caller(name):
            for turn in range(2):
                await model.batcher.submit((turn, name), SHORT)
                await asyncio.sleep(0.01 * name)  # not all of them at the same moment

        model.go.clear()
        callers = [asyncio.create_task(caller(name)) for name in range(4)]
        while not model.batches:
            await asyncio.sleep(0)
        waiting = model.ask(*range(4))
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(*callers, *waiting)

    first, second = with_model(scenario).batches
    assert first == [(0, name) for name in range(4)]
    assert set(second) == {0, 1, 2, 3, *((1, name) for name in range(4))}


def test_a_caller_alone_waits_for_nobody_when_it_returns(monkeypatch):
    monkeypatch.setattr("service.batching._FOR_RETURNS", FOREVER)

    async def scenario(model):
        for turn in range(3):
            await asyncio.gather(*model.ask(turn))

    assert with_model(scenario).batches == [[0], [1], [2]]


def test_who_does_not_return_is_waited_for_a_twentieth_of_the_time_at_most():
    async def scenario(model):
        first = await held_up(model)
        waiting = model.ask("waiting")
        await asyncio.sleep(0.4)
        model.go.set()
        await asyncio.gather(*first)
        ended = time.monotonic()
        await asyncio.gather(*waiting)
        assert 0.015 < time.monotonic() - ended < 0.4  # .02 s are promised

    assert with_model(scenario).batches == [["first"], ["waiting"]]


def test_a_first_request_waits_for_company_but_a_full_batch_goes_at_once():
    async def scenario(model):
        asked = model.ask(0)
        await asyncio.sleep(0.01)
        asked += model.ask(*range(1, 25))  # 25 · 40 tokens fill the budget of 1,000
        await asyncio.gather(*asked)  # a wait of 1,000 s would run into the time limit of `run`

    assert with_model(scenario, max_wait_s=1000.0).batches == [list(range(25))]


def test_a_lone_request_goes_when_its_wait_is_over():
    async def scenario(model):
        await asyncio.gather(*model.ask("alone"))

    assert with_model(scenario, max_wait_s=0.01).batches == [["alone"]]


def test_a_request_that_is_given_up_never_reaches_the_model():
    async def scenario(model):
        first = await held_up(model)
        rest = model.ask(*range(4))
        await asyncio.sleep(0)
        rest[1].cancel()
        rest[3].cancel()
        with pytest.raises(asyncio.CancelledError):
            await rest[3]
        model.go.set()
        await asyncio.gather(first[0], rest[0], rest[2])

    assert with_model(scenario).batches == [["first"], [0, 2]]


def test_an_error_belongs_to_the_request_that_made_it():
    async def scenario(model):
        first = await held_up(model)
        rest = model.ask(0, KeyError("mine"), 2)
        await asyncio.sleep(0)
        model.go.set()
        assert await rest[0] == 0
        with pytest.raises(KeyError, match="mine"):
            await rest[1]
        assert await rest[2] == 2
        await asyncio.gather(*first)

    assert len(with_model(scenario).batches) == 2


def test_a_model_that_fails_fails_its_batch_and_serves_the_next():
    async def scenario(model):
        async def broken(_batch):
            raise ZeroDivisionError

        working, model.batcher._compute = model.batcher._compute, broken
        with pytest.raises(ZeroDivisionError):
            await model.ask("x")[0]
        model.batcher._compute = working
        assert await model.ask("y")[0] == "y"

    with_model(scenario)


def test_closing_serves_everybody_who_waits():
    async def scenario(model):
        first = await held_up(model)
        rest = model.ask(*range(60))
        await asyncio.sleep(0)
        model.batcher.close()
        model.go.set()
        assert await asyncio.gather(*rest) == list(range(60))
        await asyncio.gather(*first)

    with_model(scenario)
