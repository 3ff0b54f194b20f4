"""What holds for every route: ids, limits, problem documents, the page, the OpenAPI document."""

import json
import subprocess
import sys
from importlib import import_module
from inspect import iscoroutinefunction
from pkgutil import iter_modules

import pytest

from api import routes as routes_package
from api.app import create_app
from service.local import LocalAttributor


@pytest.mark.parametrize("path", ["/nothing", "/attribute/x", "/docs", "/redoc", "/static/none.js"])
def test_an_unknown_route_is_a_problem_document(client, is_problem, path):
    assert path[:80] in is_problem(client.get(path), 404)["detail"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_not_allowed(client, is_problem, method):
    answer = client.request(method, "/attribute")
    is_problem(answer, 405)
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("given", ["abc-123", "A.b_c", "x" * 128])
def test_a_sane_request_id_is_echoed(client, given):
    assert client.get("/livez", headers={"X-Request-Id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "<script>", "é".encode(), 'a"b'])
def test_any_other_request_id_is_replaced(client, given):
    answer = client.get("/livez", headers={"X-Request-Id": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


def test_a_body_over_the_limit_is_refused_by_its_length(client, is_problem):
    body = {"prompt": "p", "response": "x" * 2_000_000}
    problem = is_problem(client.post("/attribute", json=body), 413)
    assert "2,000,000 bytes" in problem["detail"]


def test_a_body_without_a_length_is_refused_when_it_passes_the_limit(client, is_problem):
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(100):
            sent += 1_000_000
            yield b"x" * 1_000_000

    is_problem(client.post("/attribute", content=chunks()), 413)


def test_a_body_in_chunks_under_the_limit_is_read(client):
    body = json.dumps({"prompt": "who?", "response": "the king"}).encode()
    answer = client.post(
        "/attribute",
        content=(body[i : i + 5] for i in range(0, len(body), 5)),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200


def test_the_page_and_its_files(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "<title>Whence</title>" in page.text
    script = client.get("/static/most-valuable-data.js")
    assert script.status_code == 200
    assert "javascript" in script.headers["content-type"]
    method = client.get("/methods.md")
    assert method.text.startswith("# ")
    for answer in (
        page,
        script,
        method,
        client.get("/methods"),
        client.get("/livez"),
        client.get("/nothing"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["/static/../__init__.py", "/static/%2e%2e/__init__.py", "/static/..%2f__init__.py"]
)
def test_no_file_beside_the_page_is_served(client, path):
    assert client.get(path).status_code == 404


def test_the_openapi_document_names_every_failure_as_a_problem(client):
    document = client.get("/openapi.json").json()
    operations = [(path, op) for path, item in document["paths"].items() for op in item.values()]
    assert len(operations) > 5
    others = {
        "/metrics": ["text/plain"],
        "/v1/chat/completions": ["application/json", "text/event-stream"],
        "/dashboard/views/{view}/{table}.{form}": [
            "text/csv; charset=utf-8",
            "application/vnd.apache.parquet",
        ],
    }
    assert "HTTPValidationError" not in json.dumps(document)
    for path, operation in operations:
        for status, answer in operation["responses"].items():
            good = others.get(path, ["application/json"])
            # Below /v1/ they have the form that clients of the OpenAI API read.
            failure = "application/json" if path.startswith("/v1/") else "application/problem+json"
            assert list(answer["content"]) == (good if status.startswith("2") else [failure])
    for name in ("AttributeRequest", "AttributeResult", "Hit", "Problem"):
        text = json.dumps(document)
        assert name in text


def test_building_the_application_loads_nothing():
    def load():
        raise AssertionError("loaded")

    create_app(LocalAttributor(load, queue_size=1))


def test_the_api_loads_neither_torch_nor_faiss():
    program = (
        "import sys, api.app, api.server; "
        "print([m for m in ('torch', 'faiss', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_what_routes_ask_for_needs_no_thread():
    """A plain function among the dependencies is a hop to a thread and back, at each request."""

    def calls(dependant):
        for dependency in dependant.dependencies:
            yield dependency.call
            yield from calls(dependency)

    routers = [
        import_module(f"api.routes.{one.name}").router
        for one in iter_modules(routes_package.__path__)
    ]
    routes = [route for router in routers for route in router.routes]
    asked = {call for route in routes for call in calls(route.dependant)}
    assert len(asked) > 5
    in_threads = {
        call.__name__
        for call in asked
        if not iscoroutinefunction(call) and not iscoroutinefunction(type(call).__call__)
    }
    assert in_threads == {"_administrator"}  # waits for the disk
