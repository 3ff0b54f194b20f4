"""Rates of keys over HTTP: replicas over one Redis, items of a batch, and what is told of it."""

from datetime import UTC, datetime

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from influence.errors import NotReady
from service.keys import KeyRing, create_key
from service.local import LocalAttributor
from service.shared_rates import SharedRates

ASK = {"prompt": "who?", "response": "the king is north"}


@pytest.fixture
def new_key(tmp_path):
    def make(*scopes, **fields):
        key = {"name": "test", "scopes": frozenset(scopes or ("read",)), "now": datetime.now(UTC)}
        token = create_key(tmp_path / "keys.json", **key, **fields)[1]
        return {"Authorization": f"Bearer {token}"}

    return make


def nothing():
    raise NotReady("No model is needed to be counted.")


def new_app(tmp_path, load=nothing, **settings):
    return create_app(LocalAttributor(load), keys=KeyRing(tmp_path / "keys.json"), **settings)


def test_a_key_has_its_rate_once_for_all_replicas(
    tmp_path, new_key, on_a_socket, redis_server, redis_url, caplog
):
    limited, admin = new_key(requests_per_minute=5), new_key("admin")
    apps = [new_app(tmp_path, rates=SharedRates(redis_url)) for _ in range(2)]
    with on_a_socket(apps[0]) as first, on_a_socket(apps[1]) as second:

        def statuses(times, *ports):
            return [
                httpx2.get(f"http://127.0.0.1:{port}/valuations?period=2026", headers=limited)
                for _ in range(times)
                for port in ports
            ]

        answers = statuses(4, first, second)  # 404: there is no ledger
        assert [answer.status_code for answer in answers] == [404] * 5 + [429] * 3
        assert all(1 <= int(one.headers["retry-after"]) <= 60 for one in answers[5:])
        told = httpx2.get(f"http://127.0.0.1:{second}/usage", headers=admin).json()["keys"]
        assert sorted((one["admitted"], one["refused"]) for one in told) == [(1, 0), (5, 3)]

        redis_server.stop()
        found = [answer.status_code for answer in statuses(6, first, second)]
        assert found == [404] * 10 + [429] * 2  # each by itself
    gone = [one for one in caplog.records if "every replica counts by itself" in one.message]
    assert len(gone) == 2


def test_items_of_a_batch_count_as_what_they_are(tiny, tmp_path, new_key, until_ready):
    limited, owner = new_key(requests_per_minute=3), new_key("admin", owners=("Anna",))
    with TestClient(new_app(tmp_path, tiny.engine)) as client:
        until_ready(client)
        body = {"requests": [ASK] * 5}
        items = client.post("/attribute/batch", json=body, headers=limited).json()["items"]
        problems = [item["problem"] for item in items]
        assert sum(problem is None for problem in problems) == 3
        assert {p["type"] for p in problems if p} == {"urn:whence:problem:rate-limited"}
        assert client.post("/attribute", json=ASK, headers=limited).status_code == 429
        assert client.get("/usage", headers=new_key()).status_code == 403  # no administrator
        (own,) = client.get("/usage", headers=owner).json()["keys"]  # of itself alone
        assert own["admitted"] == 1
