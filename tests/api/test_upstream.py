"""A server in front of another one that has the engine: real servers on real sockets."""

from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.server import run
from api.upstream import UpstreamAttributor
from influence.errors import InvalidInput
from service.cache import MemoryCache
from service.caching import CachingAttributor
from service.keys import KeyRing, create_key
from service.local import LocalAttributor
from service.settings import load_settings

ASK = {"prompt": "who?", "response": "the king is north", "top_k": 3}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory):
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def key(keys_file):
    scopes = frozenset({"read"})
    return create_key(keys_file, name="front", scopes=scopes, now=datetime.now(UTC))[1]


@pytest.fixture(scope="module")
def engine(tiny, keys_file, key, on_a_socket, until):
    """The server that has the engine; its address."""
    attributor = LocalAttributor(tiny.engine)
    with on_a_socket(create_app(attributor, keys=KeyRing(keys_file))) as port:
        until(lambda: attributor.ready)
        yield f"http://127.0.0.1:{port}"


def in_front(url, key):
    upstream = UpstreamAttributor(url, key=key, timeout_s=30)
    return create_app(CachingAttributor(upstream, MemoryCache(2**20)))


@pytest.fixture(scope="module")
def front(engine, key, until_ready):
    with TestClient(in_front(engine, key)) as client:
        yield until_ready(client)


@pytest.fixture(scope="module")
def back(engine, key):
    import httpx2

    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=engine, headers=headers, timeout=60) as client:
        yield client


def test_answers_are_those_of_the_engine_and_kept_here(front, back):
    found = front.post("/attribute", json=ASK, headers={"X-Request-Id": "r-1"}).json()
    expected = back.post("/attribute", json=ASK, headers={"X-Request-Id": "r-1"}).json()
    same = [key for key in expected if key != "timings_ms"]
    assert {key: found[key] for key in same} == {key: expected[key] for key in same}
    assert front.post("/attribute", json=ASK).json()["cached"]
    assert front.get("/documents/shelf/1").json() == back.get("/documents/shelf/1").json()
    told, serves = front.get("/info").json(), back.get("/info").json()
    assert told["index"] == serves["index"]


def test_what_the_engine_refuses_is_refused_in_its_words(front, back, is_problem):
    long = ASK | {"response": "king " * 400}
    problem = is_problem(front.post("/attribute", json=long), 422, "query-too-long")
    assert problem["detail"] == back.post("/attribute", json=long).json()["detail"]
    is_problem(front.get("/documents/nothing"), 404, "not-found")


def test_an_engine_that_is_not_there_is_503_until_it_is(is_problem):
    with TestClient(in_front("http://127.0.0.1:1", None)) as client:
        assert client.get("/livez").status_code == 200
        for answer in (client.get("/readyz"), client.post("/attribute", json=ASK)):
            is_problem(answer, 503, "not-ready")
            assert int(answer.headers["retry-after"]) >= 1


def test_a_key_that_the_engine_does_not_take_is_this_servers_trouble(
    engine, until_ready, is_problem, caplog
):
    with TestClient(in_front(engine, "wrong")) as client:
        until_ready(client)
        answer = client.post("/attribute", json=ASK)
        assert "key" not in is_problem(answer, 503, "not-ready")["detail"]
    assert "refuses this server" in caplog.text


def test_in_front_of_an_engine_no_index_is_needed_and_no_queue_allowed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHENCE_ENGINE_URL", "http://127.0.0.1:1")
    settings = load_settings(no_auth=True, port=0, queue=True)
    with pytest.raises(InvalidInput, match="WHENCE_ENGINE_URL"):
        run(settings)
