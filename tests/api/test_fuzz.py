"""`benchmarks.fuzz` at a small size: no broken request ends in a 5xx, and one that does is told."""

import asyncio

from api.app import create_app
from benchmarks.fuzz import fuzz
from influence.errors import NotReady
from service.local import LocalAttributor

REQUESTS = 300


def run(port: int):
    url = f"http://127.0.0.1:{port}"
    return asyncio.run(fuzz(url, None, REQUESTS, seed=3, clients=4))


def test_three_hundred_broken_requests_and_no_5xx(tiny, on_a_socket, until):
    attributor = LocalAttributor(tiny.engine)
    with on_a_socket(create_app(attributor)) as port:
        until(lambda: attributor.ready)
        statuses = run(port)
    assert sum(statuses.values()) == REQUESTS
    assert {200, 400, 404, 405, 422} <= set(statuses)  # it came as far as the model, and elsewhere
    assert max(statuses) < 500, statuses


def test_a_server_that_fails_is_found_out(on_a_socket, capsys):
    def nothing():
        raise NotReady("It never loads, so that what is valid meets 503.")

    with on_a_socket(create_app(LocalAttributor(nothing))) as port:
        statuses = run(port)
    assert statuses[503] > 0
    assert "503 POST" in capsys.readouterr().out
