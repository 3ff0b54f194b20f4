"""The client against real servers: the application itself, and ones that misbehave on purpose."""

import asyncio
import importlib.util
import inspect
import json
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_type_hints

import pytest
import uvicorn
from pydantic import BaseModel, ValidationError

from api.app import create_app
from influence.errors import NotReady
from service.additions import Additions
from service.keys import KeyRing, create_key
from service.local import LocalAttributor
from service.schemas import AttributeRequest, ServiceInfo
from service.sent import SentDocument
from whence_client import AsyncClient, Client, ServerUnreachable, WhenceProblem
from whence_client.calls import Options

_PATH = Path(__file__).resolve().parents[1] / "service" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("service_fixtures", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
service_fixtures = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(service_fixtures)
tiny = service_fixtures.tiny
save_tiny_model = service_fixtures.save_tiny_model


@contextmanager
def served(app):
    """An application on a real socket; its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=20)


@pytest.fixture(scope="module")
def server(tiny, tmp_path_factory):
    """Address and key of the application, served over HTTP."""
    keys = tmp_path_factory.mktemp("keys") / "keys.json"
    _, key = create_key(keys, name="a", scopes=frozenset({"read"}), now=datetime.now(UTC))
    with served(create_app(LocalAttributor(tiny.engine), keys=KeyRing(keys))) as url:
        yield url, key


class Both:
    """The same call by both clients, whose answers must agree."""

    def __init__(self, base_url: str, **settings) -> None:
        self._url, self._settings = base_url, settings

    def __getattr__(self, name: str):
        def call(*arguments, **options):
            with Client(self._url, **self._settings) as client:
                first = getattr(client, name)(*arguments, **options)

            async def second():
                async with AsyncClient(self._url, **self._settings) as client:
                    return await getattr(client, name)(*arguments, **options)

            other = asyncio.run(second())
            changing = {"request_id", "timings_ms", "cached", "items"}
            assert other.model_dump(exclude=changing) == first.model_dump(exclude=changing)
            return other

        return call


def test_every_call_gives_its_type(server, tiny):
    url, key = server
    whence = Both(url, key=key)
    record = tiny.records[9]
    found = whence.attribute(record["prompt"], record["response"], top_k=2, opponents=False)
    assert found.proponents[0].document_id == record["id"]
    assert len(found.proponents) == 2
    assert found.opponents == ()
    batch = whence.attribute_batch(
        [
            AttributeRequest(prompt="a", response="the king"),
            AttributeRequest(prompt="a", response="king " * 400),
        ]
    )
    assert batch.items[0].result is not None
    assert batch.items[1].problem is not None
    assert whence.document("long text").text == tiny.records[-1]["text"]
    assert whence.document("shelf/5").owner == "Bruno"
    assert whence.info().index.documents == len(tiny.records)


def test_a_refusal_is_the_server_s_own_problem(server):
    url, key = server
    with Client(url, key=key) as whence, pytest.raises(WhenceProblem) as refused:
        whence.attribute("a", "king " * 400)
    assert refused.value.kind == "query-too-long"
    assert refused.value.problem.status == 422
    assert refused.value.problem.request_id in str(refused.value)
    with Client(url, key="wrong") as whence, pytest.raises(WhenceProblem, match="401"):
        whence.document("shelf/1")
    with Client(url, key=key) as whence, pytest.raises(WhenceProblem, match="404"):
        whence.document("../../etc/passwd")


def test_documents_that_are_sent_wait_to_be_added(tmp_path):
    _, key = create_key(
        tmp_path / "keys.json", name="a", scopes=frozenset({"write"}), now=datetime.now(UTC)
    )

    def nothing():
        raise NotReady("No model is needed for this.")

    app = create_app(
        LocalAttributor(nothing),
        keys=KeyRing(tmp_path / "keys.json"),
        additions=Additions(tmp_path / "additions"),
    )
    with served(app) as url:
        whence = Client(url, key=key)
        sent = [SentDocument(id="new/1", text="the ship"), SentDocument(id="new/2", text="a ship")]
        taken = whence.add_documents(sent)
        assert (taken.state, taken.documents) == ("waiting", 2)
        assert whence.addition(taken.id) == taken
        whence.close()

        async def asynchronously():
            async with AsyncClient(url, key=key) as whence:
                return await whence.addition((await whence.add_documents(sent, replace=True)).id)

        assert asyncio.run(asynchronously()).documents == 2
    with Client("http://127.0.0.1:1") as whence, pytest.raises(ValidationError, match="twice"):
        whence.add_documents([sent[0], sent[0]])


def test_what_was_attributed_is_found_by_its_request_id(server):
    url, key = server
    whence = Both(url, key=key)
    found = whence.attribute("who?", "the king of the river", top_k=2)
    again = whence.attribution(found.request_id)
    assert again.proponents == found.proponents


def test_what_breaks_a_bound_never_leaves():
    with Client("http://127.0.0.1:1") as whence, pytest.raises(ValidationError, match="top_k"):
        whence.attribute("a", "b", top_k=0)


def test_the_options_are_those_of_the_request():
    fields = set(AttributeRequest.model_fields) - {"prompt", "response"}
    assert set(get_type_hints(Options)) == fields


def test_both_clients_have_the_same_calls():
    def calls(client):
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in vars(client).items()
            if not name.startswith("_")
        }

    assert calls(Client) == calls(AsyncClient)


BUSY = {"type": "urn:whence:problem:overloaded", "title": "Overloaded", "status": 429,
        "detail": "The queue is full.", "request_id": "r"}  # fmt: skip


def example(model: type[BaseModel]) -> dict:
    """An instance made of the examples in its own description."""
    return {
        name: field.examples[0] if field.examples else example(field.annotation)  # type: ignore[arg-type]
        for name, field in model.model_fields.items()
        if field.examples or field.is_required()
    }


INFO = example(ServiceInfo)


@pytest.fixture
def scripted():
    """A server that gives prepared answers in turn, the last for ever; and what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            asked.append((time.monotonic(), dict(self.headers)))
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if answer is None:  # hang up without a word
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            status, headers, body = answer
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    answers: list = []
    asked: list = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers, asked
    server.shutdown()
    server.server_close()


def info(url: str, kind: str, timeout_s: float):
    if kind == "sync":
        with Client(url, timeout_s=timeout_s) as whence:
            return whence.info()

    async def awaited():
        async with AsyncClient(url, timeout_s=timeout_s) as whence:
            return await whence.info()

    return asyncio.run(awaited())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_busy_server_is_asked_again_no_sooner_than_it_said(scripted, kind):
    url, answers, asked = scripted
    answers += [(429, {"Retry-After": "1"}, BUSY), (200, {}, INFO)]
    assert info(url, kind, 30).model == INFO["model"]
    (first, _), (second, _) = asked
    assert second - first >= 1.0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_server_that_restarts_is_asked_again(scripted, kind):
    url, answers, asked = scripted
    answers += [None, (503, {}, BUSY | {"status": 503}), (502, {}, b"<h1>"), (200, {}, INFO)]
    assert info(url, kind, 60).model == INFO["model"]
    assert len(asked) == 4


TAKEN = {"id": "a", "state": "waiting", "documents": 1, "version": None, "detail": None}


def test_documents_are_sent_again_only_if_they_were_not_taken(scripted):
    url, answers, asked = scripted
    sent = [SentDocument(id="new/1", text="the ship")]
    with Client(url, timeout_s=30) as whence:
        answers += [(503, {}, BUSY | {"status": 503}), (202, {}, TAKEN)]
        assert whence.add_documents(sent).id == "a"
        assert len(asked) == 2
        answers[:] = [None, (202, {}, TAKEN)]  # it may have been taken before the line broke
        with pytest.raises(ServerUnreachable):
            whence.add_documents(sent)
        answers[:] = [(502, {}, b"<h1>"), (202, {}, TAKEN)]
        with pytest.raises(WhenceProblem, match="502"):
            whence.add_documents(sent)
        assert len(asked) == 4


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_it_does_not_wait_beyond_its_time(scripted, kind):
    url, answers, asked = scripted
    answers.append((429, {"Retry-After": "3600"}, BUSY))
    begun = time.monotonic()
    with pytest.raises(WhenceProblem, match="queue is full"):
        info(url, kind, 20)
    assert time.monotonic() - begun < 20  # and not an hour
    assert len(asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 500, 504])
def test_what_another_try_would_not_mend_is_not_tried_again(scripted, status):
    url, answers, asked = scripted
    answers.append((status, {}, BUSY | {"status": status}))
    with pytest.raises(WhenceProblem):
        info(url, "sync", 20)
    assert len(asked) == 1


def test_the_time_that_is_left_is_told_to_the_server(scripted):
    url, answers, asked = scripted
    answers += [(503, {"Retry-After": "1"}, BUSY), (200, {}, INFO)]
    info(url, "sync", 30)
    first, second = (int(headers["X-Request-Timeout-Ms"]) for _, headers in asked)
    assert first - second >= 1_000
    assert first <= 30_000


def test_an_answer_of_a_newer_server_is_understood(scripted):
    url, answers, _ = scripted
    newer = INFO | {"mood": "fine", "index": INFO["index"] | {"shards": 3}}
    answers.append((200, {}, newer))
    assert info(url, "sync", 20).index.documents == INFO["index"]["documents"]


def test_a_proxy_s_own_page_is_a_problem_too(scripted):
    url, answers, _ = scripted
    answers.append((413, {"Content-Type": "text/html"}, b"<h1>too large</h1>"))
    with pytest.raises(WhenceProblem, match="no problem document") as refused:
        info(url, "sync", 20)
    assert refused.value.problem.status == 413


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_nobody_there_is_told_in_a_sentence(kind):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerUnreachable, match=rf"127\.0\.0\.1:{port}.*Check the address"):
        info(f"http://127.0.0.1:{port}", kind, 0.5)


def test_the_client_loads_nothing_heavy():
    program = (
        "import sys, whence_client; print(sorted({m for m in sys.modules if m.split('.')[0] in "
        "('torch', 'faiss', 'numpy', 'fastapi', 'sqlalchemy', 'pyarrow', 'api')}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]", done.stderr
