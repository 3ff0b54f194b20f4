"""The OpenAPI document against the application: everything it allows, and much that it does not."""

import json
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn

from api.app import create_app
from service.keys import KeyRing, create_key
from service.local import LocalAttributor

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
# Rules between fields (contrast needs an alternative) are beyond a schema, so 422 may also meet
# what the schema allows. A deadline of two milliseconds is rightly answered with 504.
CONFIG = """
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "504"]
positive_data_acceptance.expected-statuses = ["2xx", "404", "422", "429", "504"]
"""


@pytest.fixture
def address_and_key(tiny, tmp_path):
    _, key = create_key(
        tmp_path / "keys.json", name="a", scopes=frozenset({"read", "admin"}), now=datetime.now(UTC)
    )
    app = create_app(LocalAttributor(tiny.engine), keys=KeyRing(tmp_path / "keys.json"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", key
        server.should_exit = True
        thread.join(timeout=20)


@pytest.mark.slow
def test_schemathesis_finds_nothing(address_and_key, tmp_path):
    address, key = address_and_key
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            SCHEMATHESIS, "--config-file", "schemathesis.toml", "run", f"{address}/openapi.json",
            "--header", f"Authorization: Bearer {key}", "--max-examples", "10", "--seed", "1",
            "--generation-deterministic", "--wait-for-schema", "30", "--no-color",
            "--exclude-path-regex", "^/metrics$",  # text of its own form, not JSON
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]


def described(schema: dict, where: str) -> list[str]:
    """Fields of a schema that have no example or no description."""
    return [
        f"{where}.{name}"
        for name, field in schema.get("properties", {}).items()
        if "$ref" not in json.dumps(field)
        and not ({"examples", "example", "const"} & set(field) and field.get("description"))
    ]


def test_every_field_and_parameter_has_an_example(client):
    document = client.get("/openapi.json").json()
    without = []
    for name, schema in document["components"]["schemas"].items():
        without += described(schema, name)
    for path, item in document["paths"].items():
        for operation in item.values():
            assert operation.get("summary"), path
            assert operation.get("description"), path
            without += [
                f"{path} {parameter['name']}"
                for parameter in operation.get("parameters", [])
                if not (parameter.get("description") and has_example(parameter))
            ]
    assert without == []


def has_example(parameter: dict) -> bool:
    schema = parameter["schema"]
    return bool({"example", "examples"} & ({*parameter} | {*schema}))
