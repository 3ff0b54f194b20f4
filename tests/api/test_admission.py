"""A full queue refuses by the bytes of a request alone, but for those that are answered anyhow."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from api.app import create_app
from service.cache import MemoryCache
from service.caching import CachingAttributor
from service.engine import Engine
from service.local import LocalAttributor

BEFORE = {"prompt": "who was before?", "response": "the queen"}
HELD = {"prompt": "who is held?", "response": "the king"}
WAITING = {"prompt": "who waits?", "response": "the king"}


@pytest.fixture
def full(tiny, on_a_socket, until):
    """A client of a server whose queue of one is full, a function that posts, the gate."""
    gate = threading.Event()
    held: list[str] = []

    class HeldUp(Engine):
        def attribute_many(self, asked):
            if asked[0].request.prompt not in (BEFORE["prompt"], "What is this?"):  # the warm-up
                held.extend(one.request.prompt for one in asked)
                assert gate.wait(60)
            return super().attribute_many(asked)

    local = LocalAttributor(
        lambda: HeldUp.load(tiny.index_dir, tiny.model_dir, device="cpu"), queue_size=1
    )
    app = create_app(CachingAttributor(local, MemoryCache(2**20)))
    with (
        on_a_socket(app) as port,
        ThreadPoolExecutor(4) as threads,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        until(lambda: local.ready)
        assert client.post("/attribute", json=BEFORE).status_code == 200
        waiting = [threads.submit(client.post, "/attribute", json=HELD)]
        until(lambda: held)
        waiting.append(threads.submit(client.post, "/attribute", json=WAITING))
        until(lambda: local.waiting == 1)
        try:
            yield client, threads, gate
        finally:
            gate.set()
        assert [one.result().status_code for one in waiting] == [200, 200]


def test_a_new_request_is_refused_before_anything_is_spent_on_it(full, is_problem):
    client, _, _ = full
    for content in (json.dumps({"prompt": "new", "response": "the ship"}), "{no JSON", ""):
        answer = client.post("/attribute", content=content)
        problem = is_problem(answer, 429, "overloaded")
        assert "1 requests are waiting" in problem["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
    told = client.get("/metrics").text
    assert 'whence_rejected_total{reason="overloaded"} 3.0' in told
    assert client.get("/attribute").status_code == 405  # nothing else is refused


def test_what_is_refused_does_not_count_for_the_rate_of_its_key(full):
    client, _, _ = full

    def counted():
        (key,) = client.get("/usage").json()["keys"]  # counts itself
        return key["admitted"], key["refused"]

    admitted, refused = counted()
    assert client.post("/attribute", json={"prompt": "new", "response": "x"}).status_code == 429
    assert counted() == (admitted + 1, refused)


def test_what_was_answered_before_is_answered_still(full):
    client, _, _ = full
    answer = client.post("/attribute", json=BEFORE)
    assert (answer.status_code, answer.json()["cached"]) == (200, True)


def test_what_is_being_answered_is_shared(full):
    client, threads, gate = full
    shared = threads.submit(client.post, "/attribute", json=WAITING)
    with pytest.raises(TimeoutError):
        shared.result(0.5)  # it was not refused at once
    gate.set()
    assert shared.result().json()["cached"] is True


def test_what_was_refused_is_not_remembered(full, is_problem):
    client, _, _ = full
    again = {"prompt": "again", "response": "the ship"}
    for _ in range(2):
        is_problem(client.post("/attribute", json=again), 429, "overloaded")
