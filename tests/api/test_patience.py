"""Deadlines, and clients that leave, over a real socket."""

import json
import socket
import threading
import time

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from service.engine import Engine
from service.local import LocalAttributor

ASK = {"prompt": "who?", "response": "the king"}
LEFT = {"prompt": "who left?", "response": "the queen"}


@pytest.fixture
def held_up(tiny):
    """An attributor whose model waits at a gate, with what reached it."""
    gate, entered, reached = threading.Event(), threading.Event(), []

    class HeldUp(Engine):
        def attribute_many(self, asked):
            if asked[0].request_id != "warm-up":
                reached.extend(one.request.prompt for one in asked)
                entered.set()
                assert gate.wait(30)
            return super().attribute_many(asked)

    attributor = LocalAttributor(
        lambda: HeldUp.load(tiny.index_dir, tiny.model_dir, device="cpu"), queue_size=8
    )
    yield attributor, gate, entered, reached
    gate.set()


def send(port: int, body: dict) -> socket.socket:
    content = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.sendall(
        b"POST /attribute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    )
    return connection


def wait_until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_client_that_has_gone_is_dropped_before_its_work_reaches_the_model(held_up, on_a_socket):
    attributor, gate, entered, reached = held_up
    with on_a_socket(create_app(attributor)) as port:
        wait_until(lambda: attributor.ready)
        first = send(port, ASK)
        assert entered.wait(30)
        leaving = [send(port, LEFT) for _ in range(3)]
        wait_until(lambda: attributor.waiting == 3)
        for connection in leaving:
            connection.close()
        wait_until(lambda: attributor.waiting == 0)  # while the model is still held up
        gate.set()
        for connection in (first, send(port, ASK)):
            with connection:
                assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    assert reached == [ASK["prompt"]] * 2


def test_a_deadline_is_504_and_gives_the_place_back(held_up, on_a_socket, is_problem, until_ready):
    attributor, gate, _entered, reached = held_up
    with TestClient(create_app(attributor)) as client:
        until_ready(client)
        late = client.post("/attribute", json=ASK, headers={"X-Request-Timeout-Ms": "50"})
        problem = is_problem(late, 504, "deadline-exceeded")
        assert "0.05 seconds" in problem["detail"]
        late = client.post("/attribute", json=LEFT, headers={"X-Request-Timeout-Ms": "50"})
        assert late.status_code == 504
        assert attributor.waiting == 0
        gate.set()
        answer = client.post("/attribute", json=ASK, headers={"X-Request-Timeout-Ms": "30000"})
        assert answer.status_code == 200
    assert reached == [ASK["prompt"]] * 2  # the second was given up while it waited


def test_the_server_has_a_deadline_of_its_own(held_up, is_problem, until_ready):
    attributor, *_ = held_up
    with TestClient(create_app(attributor, request_timeout_s=0.05)) as client:
        until_ready(client)
        headers = {"X-Request-Timeout-Ms": "60000"}  # a caller may ask for less, not for more
        is_problem(client.post("/attribute", json=ASK, headers=headers), 504, "deadline-exceeded")
        held_up[1].set()


@pytest.mark.parametrize("given", ["0", "-1", "soon", "1.5", ""])
def test_a_deadline_that_is_no_number_of_milliseconds(client, is_problem, given):
    answer = client.post("/attribute", json=ASK, headers={"X-Request-Timeout-Ms": given})
    assert "timeout-ms" in is_problem(answer, 422, "invalid-request")["detail"].lower()
