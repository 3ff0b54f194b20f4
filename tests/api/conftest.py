"""The API over a real engine; its tiny model and index are those of the tests of the service."""

import importlib.util
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.connections import CLIENT_TIMEOUT_S, listen, new_server
from service.local import LocalAttributor

_PATH = Path(__file__).resolve().parents[1] / "service" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("service_fixtures", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
service_fixtures = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(service_fixtures)
tiny = service_fixtures.tiny
save_tiny_model = service_fixtures.save_tiny_model


def ready_client(client: TestClient) -> TestClient:
    deadline = time.monotonic() + 60
    while (answer := client.get("/readyz")).status_code != 200:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.02)
    return client


def wait_until(condition, seconds=60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="session")
def until():
    """Wait for a condition to hold."""
    return wait_until


@pytest.fixture(scope="session")
def until_ready():
    """Wait for a client's server to have loaded."""
    return ready_client


@pytest.fixture(scope="module")  # its event loop must not outlive the tests of its file
def client(tiny):
    app = create_app(LocalAttributor(tiny.engine, queue_size=8), max_body_bytes=2_000_000)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield ready_client(client)


@pytest.fixture(scope="session")
def is_problem():
    """Check that an answer is a problem document, and return it."""

    def check(answer, status: int, kind: str | None = None) -> dict:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        body = answer.json()
        assert set(body) == {"type", "title", "status", "detail", "request_id"}
        assert body["status"] == status
        assert body["request_id"] == answer.headers["x-request-id"]
        assert body["type"] == ("about:blank" if kind is None else f"urn:whence:problem:{kind}")
        assert body["detail"].endswith((".", "…"))
        return body

    return check


@contextmanager
def serving(app, client_timeout_s=CLIENT_TIMEOUT_S):
    """Serve an application on a real socket, from a thread of this process; gives the port."""
    with listen("127.0.0.1", 0, client_timeout_s=client_timeout_s) as listening:
        server = new_server(app, client_timeout_s=client_timeout_s)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def on_a_socket():
    """`serving`."""
    return serving
