"""Documents sent to a real server are added by a real `whence add`, and then found."""

import os
import shutil
import signal
from datetime import UTC, datetime

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.connections import listen
from api.server import run
from influence.errors import NotReady
from service.additions import Additions
from service.keys import KeyRing, create_key
from service.local import LocalAttributor
from service.settings import load_settings

DOCUMENT = {
    "id": "new/1",
    "prompt": "which ship of silver is it?",
    "response": "the ship of silver is in the city of gold and wine.",
    "owner": "Dora",
    "metadata": {"year": 2026},
}


def bearer(folder, *scopes, **fields):
    key = {"name": "test", "scopes": frozenset(scopes), "now": datetime.now(UTC)}
    return {"Authorization": f"Bearer {create_key(folder / 'keys.json', **key, **fields)[1]}"}


@pytest.fixture
def asked(tmp_path):
    """A server that takes documents and has no model: what is refused, and how."""

    def nothing():
        raise NotReady("No model is needed for this.")

    bearer(tmp_path, "read")
    additions = Additions(tmp_path / "additions")
    app = create_app(
        LocalAttributor(nothing), keys=KeyRing(tmp_path / "keys.json"), additions=additions
    )
    with TestClient(app) as client:
        yield client


def test_documents_that_are_sent_are_served_some_seconds_later(
    tiny, tmp_path, start_in_child, until, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    index_dir = shutil.copytree(tiny.index_dir, tmp_path / "library")
    writer, reader = bearer(tmp_path, "write"), bearer(tmp_path, "read")
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    settings = load_settings(
        index_dir=index_dir,
        model=str(tiny.model_dir),
        port=port,
        device="cpu",
        keys_file=tmp_path / "keys.json",
        additions_dir=tmp_path / "additions",
        follow_s=0.2,
    )
    start, end = start_in_child
    child, words = start(lambda: run(settings))
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        def is_ready():
            try:
                return client.get("/readyz").status_code == 200
            except httpx2.TransportError:
                return False

        until(is_ready, 120)
        taken = client.post("/documents", json={"documents": [DOCUMENT]}, headers=writer)
        assert taken.status_code == 202, taken.text
        assert taken.json()["state"] == "waiting"
        where = taken.headers["location"]

        def state():
            return client.get(where, headers=writer).json()

        until(lambda: state()["state"] != "waiting", 200)
        assert state()["state"] == "done", state()
        version = state()["version"]
        until(lambda: client.get("/info").json()["index"]["version"] == version)
        found = client.get("/documents/new/1", headers=reader).json()
        assert (found["owner"], found["metadata"]) == ("Dora", {"year": 2026})
        body = {key: DOCUMENT[key] for key in ("prompt", "response")}
        hits = client.post("/attribute", json=body, headers=reader).json()["proponents"]
        assert hits[0]["document_id"] == "new/1"
    os.kill(child, signal.SIGTERM)
    # uvicorn passes the signal on once it has drained.
    assert end(child, words)[0] in (0, -signal.SIGTERM)


def test_only_a_key_that_may_write_sends_documents(asked, tmp_path, is_problem):
    body = {"documents": [DOCUMENT]}
    for scope in ("read", "admin"):
        answer = asked.post("/documents", json=body, headers=bearer(tmp_path, scope))
        is_problem(answer, 403, "forbidden")
    anna = bearer(tmp_path, "write", owners=("Anna",))
    assert (
        "Anna"
        in is_problem(asked.post("/documents", json=body, headers=anna), 403, "forbidden")["detail"]
    )
    own = {"documents": [DOCUMENT | {"owner": "Anna"}]}
    taken = asked.post("/documents", json=own, headers=anna)
    assert taken.status_code == 202
    assert asked.get(taken.headers["location"], headers=anna).json() == taken.json()
    other = bearer(tmp_path, "write")
    is_problem(asked.get(taken.headers["location"], headers=other), 404, "not-found")


def test_what_is_no_document_is_named(asked, tmp_path, is_problem):
    writer = bearer(tmp_path, "write")
    answer = asked.post("/documents", json={"documents": [{"id": "a"}]}, headers=writer)
    assert "documents.0: text, prompt" in is_problem(answer, 422, "invalid-request")["detail"]


def test_a_server_without_a_folder_for_them_takes_none(tmp_path, is_problem):
    def nothing():
        raise NotReady("No model is needed for this.")

    with TestClient(create_app(LocalAttributor(nothing))) as client:
        answer = client.post("/documents", json={"documents": [DOCUMENT]})
        assert "WHENCE_ADDITIONS_DIR" in is_problem(answer, 404, "not-found")["detail"]
