import threading
import time

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from influence.errors import NotFound
from service.engine import Engine
from service.local import LocalAttributor

ASK = {"prompt": "who?", "response": "the king"}


def test_info(client, tiny):
    info = client.get("/info").json()
    assert info["model"] == "model"
    assert info["index"]["id"] == "library"
    assert info["index"]["documents"] == len(tiny.records)


def test_probes_while_loading(tiny, is_problem, until_ready):
    may_load = threading.Event()

    def load():
        may_load.wait(20)
        return tiny.engine()

    with TestClient(create_app(LocalAttributor(load, queue_size=1))) as client:
        assert client.get("/livez").json() == {"status": "alive"}
        for answer in (
            client.get("/readyz"),
            client.get("/info"),
            client.get("/documents/shelf/1"),
            client.post("/attribute", json=ASK),
        ):
            is_problem(answer, 503, "not-ready")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/").status_code == 200
        may_load.set()
        until_ready(client)
        assert client.get("/readyz").json() == {"status": "ready"}
        assert client.post("/attribute", json=ASK).status_code == 200


def test_an_index_that_cannot_be_opened_is_told_to_everyone(tmp_path, is_problem):
    attributor = LocalAttributor(lambda: Engine.load(tmp_path), queue_size=1)
    with TestClient(create_app(attributor)) as client:
        while "being loaded" in (answer := client.get("/readyz")).text:
            time.sleep(0.02)
        assert str(tmp_path) in is_problem(answer, 503, "index-unavailable")["detail"]
        assert client.get("/livez").status_code == 200


def test_a_full_queue_is_429_with_retry_after(tiny, is_problem, until_ready):
    entered, go_on = threading.Event(), threading.Event()

    class HeldUp(Engine):
        def attribute_many(self, asked):
            if asked[0].request_id != "warm-up":
                entered.set()
                assert go_on.wait(20)
            return super().attribute_many(asked)

    def load():
        return HeldUp.load(tiny.index_dir, tiny.model_dir, device="cpu")

    with TestClient(create_app(LocalAttributor(load, queue_size=0))) as client:
        until_ready(client)
        answers = []
        first = threading.Thread(
            target=lambda: answers.append(client.post("/attribute", json=ASK)), daemon=True
        )
        first.start()
        assert entered.wait(20)
        refused = client.post("/attribute", json=ASK)
        is_problem(refused, 429, "overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/livez").status_code == 200
        assert client.get("/documents/shelf/1").status_code == 200
        go_on.set()
        first.join(20)
        assert answers[0].status_code == 200


def test_a_bug_is_a_problem_document_without_its_details(tiny, is_problem, until_ready, caplog):
    class Broken(Engine):
        def document(self, document_id):
            raise KeyError("secret") if document_id == "bug" else NotFound("Not there.")

    def load():
        return Broken.load(tiny.index_dir, tiny.model_dir, device="cpu")

    app = create_app(LocalAttributor(load, queue_size=0))
    with TestClient(app, raise_server_exceptions=False) as client:
        until_ready(client)
        answer = client.get("/documents/bug", headers={"X-Request-Id": "bug-1"})
        assert "secret" not in is_problem(answer, 500)["detail"]
        assert "bug-1" in caplog.text
        is_problem(client.get("/documents/other"), 404, "not-found")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/info"])
def test_probes_take_no_body_and_no_other_method(client, is_problem, path):
    answer = client.post(path)
    is_problem(answer, 405)
    assert answer.headers["allow"] == "GET"
