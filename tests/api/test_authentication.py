"""Keys over HTTP: who is let in, what is refused, and that no route was forgotten."""

import json
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.authentication import PUBLIC
from api.server import open_keys
from influence.errors import InvalidInput, KeysUnavailable
from service.keys import KeyRing, create_key, revoke_key
from service.local import LocalAttributor
from service.settings import load_settings

ASK = {"prompt": "who?", "response": "the king is north"}
NOW = datetime.now(UTC)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory):
    return tmp_path_factory.mktemp("keys") / "keys.json"


@pytest.fixture(scope="module")
def new_key(keys_file):
    def make(*scopes, **fields) -> str:
        chosen = frozenset(scopes or ("read",))
        return create_key(keys_file, name="test", scopes=chosen, now=NOW, **fields)[1]

    return make


@pytest.fixture(scope="module")
def closed(tiny, keys_file, new_key, until_ready):
    """A server that wants keys."""
    new_key()
    app = create_app(LocalAttributor(tiny.engine, queue_size=8), keys=KeyRing(keys_file))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield until_ready(client)


def operations(client) -> list[tuple[str, str]]:
    document = client.get("/openapi.json").json()
    return [(method, path) for path, item in document["paths"].items() for method in item]


def test_every_route_but_the_probes_wants_a_key(closed, is_problem):
    closed_routes = [(m, p) for m, p in operations(closed) if p not in PUBLIC]
    assert ("post", "/attribute") in closed_routes
    assert ("get", "/documents/{document_id}") in closed_routes
    for method, path in closed_routes:
        answer = closed.request(method, path.replace("{", "").replace("}", ""))
        if path.startswith("/v1/"):  # in the form of the OpenAI API
            assert answer.json()["error"]["type"] == "authentication_error"
            assert answer.status_code == 401
        else:
            is_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="whence"'


def test_a_route_that_does_not_exist_is_not_told_from_one_that_does(closed, is_problem):
    is_problem(closed.get("/nothing"), 401, "unauthenticated")


def test_probes_and_page_need_none(closed):
    for path in ("/", "/livez", "/readyz", "/info", "/openapi.json", "/static/page/page.js"):
        assert closed.get(path).status_code == 200


def test_the_openapi_document_says_which_routes_want_a_key(closed):
    document = closed.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, item in document["paths"].items():
        for operation in item.values():
            assert ("security" in operation) == (path not in PUBLIC)
            if path not in PUBLIC:
                assert {"401", "403", "429"} <= set(operation["responses"])


def test_a_key_is_let_in(closed, new_key):
    token = new_key()
    for scheme in ("Bearer", "bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {token}"}
        assert closed.post("/attribute", json=ASK, headers=headers).status_code == 200
        assert closed.get("/documents/shelf/5", headers=headers).status_code == 200


@pytest.mark.parametrize("value", ["", "Bearer", "Basic eDp5", "Bearer ", "token", "\xe9"])
def test_no_key_is_401_before_the_body_is_read(closed, is_problem, value):
    def never():
        yield b"{"
        raise AssertionError("the body was read")

    headers = {"Authorization": value.encode("latin-1"), "Content-Length": "9999999999"}
    answer = closed.post("/attribute", content=b"not even JSON", headers=headers)
    is_problem(answer, 401, "unauthenticated")


def test_a_wrong_key_is_401_and_says_so(closed, is_problem, new_key):
    for token in ("x", new_key()[:-2], "whence_\xe9_\xff"):
        headers = {"Authorization": f"Bearer {token}".encode("latin-1")}
        answer = closed.post("/attribute", json=ASK, headers=headers)
        assert token not in is_problem(answer, 401, "unauthenticated")["detail"]
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_revoked_key_is_out_at_once(closed, is_problem, keys_file, new_key):
    token = new_key()
    assert closed.post("/attribute", json=ASK, headers=bearer(token)).status_code == 200
    revoke_key(keys_file, token.split("_")[1], now=NOW)
    answer = closed.post("/attribute", json=ASK, headers=bearer(token))
    assert "revoked" in is_problem(answer, 401, "unauthenticated")["detail"]


def test_a_scope_that_is_lacking_is_403(closed, is_problem, new_key):
    answer = closed.post("/attribute", json=ASK, headers=bearer(new_key("write")))
    assert "the scope read" in is_problem(answer, 403, "forbidden")["detail"]
    assert 'error="insufficient_scope", scope="read"' in answer.headers["www-authenticate"]


def test_a_key_of_some_owners_sees_nothing_of_the_others(closed, is_problem, new_key, tiny):
    mine = bearer(new_key(owners=("Anna", "Bruno")))
    body = ASK | {"top_k": 100}
    found = closed.post("/attribute", json=body, headers=mine).json()
    hits = found["proponents"] + found["opponents"]
    assert {hit["owner"] for hit in hits} == {"Anna", "Bruno"}
    assert {share["owner"] for share in found["owners"]} == {"Anna", "Bruno"}
    everything = closed.post("/attribute", json=body, headers=bearer(new_key())).json()
    totals = {share["owner"]: share for share in everything["owners"]}
    assert all(share == totals[share["owner"]] for share in found["owners"])

    narrowed = body | {"filter": {"owners": ["Anna", "Chloe"]}}
    hits = closed.post("/attribute", json=narrowed, headers=mine).json()["proponents"]
    assert {hit["owner"] for hit in hits} == {"Anna"}
    upper = body | {"filter": {"sources": ["upper"]}}
    hits = closed.post("/attribute", json=upper, headers=mine).json()["proponents"]
    assert {(hit["owner"], hit["source"]) for hit in hits} == {
        ("Anna", "upper"),
        ("Bruno", "upper"),
    }
    others = body | {"filter": {"owners": ["Chloe"]}}
    is_problem(closed.post("/attribute", json=others, headers=mine), 403, "forbidden")

    for record in tiny.records[:8]:
        answer = closed.get(f"/documents/{record['id']}", headers=mine)
        assert answer.status_code == (200 if record.get("owner") in ("Anna", "Bruno") else 404)


def test_a_document_of_others_is_as_one_that_is_not_there(closed, is_problem, new_key):
    mine = bearer(new_key(owners=("Anna",)))
    hidden = is_problem(closed.get("/documents/shelf/1", headers=mine), 404, "not-found")
    absent = is_problem(closed.get("/documents/shelf/x", headers=mine), 404, "not-found")
    assert hidden["detail"] == absent["detail"].replace("shelf/x", "shelf/1")


def test_a_key_may_ask_so_often_and_no_more(closed, is_problem, new_key):
    limited, other = bearer(new_key(requests_per_minute=3)), bearer(new_key())
    for _ in range(3):
        assert closed.get("/documents/shelf/1", headers=limited).status_code == 200
    answer = closed.get("/documents/shelf/1", headers=limited)
    is_problem(answer, 429, "rate-limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert closed.get("/documents/shelf/1", headers=other).status_code == 200


def test_a_file_of_keys_that_breaks_lets_nobody_in(closed, is_problem, keys_file, new_key):
    token = new_key()
    good = keys_file.read_bytes()
    keys_file.write_text("{")
    answer = closed.post("/attribute", json=ASK, headers=bearer(token))
    is_problem(answer, 503, "keys-unavailable")
    assert closed.get("/livez").status_code == 200
    keys_file.write_bytes(good)
    assert closed.post("/attribute", json=ASK, headers=bearer(token)).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "127.9.9.9"])
def test_without_keys_it_answers_under_a_name_of_its_own_machine(client_without_keys, host):
    assert client_without_keys.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "["])
def test_without_keys_a_page_of_another_site_gets_nothing(client_without_keys, is_problem, host):
    """DNS rebinding: a stranger's name that points to 127.0.0.1 would be of the same origin."""
    for path in ("/livez", "/documents/shelf/1", "/"):
        answer = client_without_keys.get(path, headers={"Host": host})
        is_problem(answer, 403, "forbidden")


@pytest.fixture(scope="module")
def client_without_keys(tiny):
    app = create_app(LocalAttributor(tiny.engine, queue_size=1), local_only=True)
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "whence keys create"),
        ({"no_auth": True, "host": "0.0.0.0"}, "0.0.0.0"),
        ({"no_auth": True, "host": "192.168.1.4"}, "192.168.1.4"),
        ({"no_auth": True, "host": "::"}, "--no-auth"),
        ({"no_auth": True, "host": "example.org"}, "example.org"),
        ({"no_auth": True, "keys_file": "keys.json"}, "Leave one of them out"),
    ],
    ids=str,
)
def test_serving_without_keys_must_be_said_and_only_to_this_machine(
    tmp_path, monkeypatch, given, says
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=says):
        open_keys(load_settings(index_dir="x", **given))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_serving_without_keys_on_this_machine(tmp_path, monkeypatch, host):
    monkeypatch.chdir(tmp_path)
    assert open_keys(load_settings(index_dir="x", no_auth=True, host=host)) is None


def test_serving_with_a_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeysUnavailable, match=r"keys\.json"):
        open_keys(load_settings(index_dir="x", keys_file="keys.json", host="0.0.0.0"))


def test_nothing_of_a_key_is_logged(closed, new_key, caplog):
    token = new_key()
    caplog.set_level(0)
    closed.post("/attribute", json=ASK, headers=bearer(token))
    closed.post("/attribute", json=ASK, headers=bearer(token + "x"))
    assert token.split("_", 2)[2] not in caplog.text
    assert token not in json.dumps([record.__dict__ for record in caplog.records], default=str)
