"""Metrics, logs, traces, the audit log: what an operations team reads, from a server that ran."""

import json
import logging
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from api.dependencies import AdministratorDep
from influence.errors import NotFound, StorageFull
from service.audit import AuditLog
from service.local import LocalAttributor
from service.logs import JsonFormatter, configure_logging
from service.metrics import Metrics
from service.schemas import AttributeResult
from service.settings import load_settings, shown_settings

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "docker/grafana/whence.json").read_text(encoding="utf-8"))
ASK = {"prompt": "who?", "response": "the king is north"}


def samples(client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def counted(tiny, until_ready):
    """A server of its own, whose counters nobody else moves."""
    metrics = Metrics()
    attributor = LocalAttributor(tiny.engine, queue_size=8, metrics=metrics)
    with TestClient(create_app(attributor, metrics=metrics)) as client:
        yield until_ready(client)


def test_an_answer_and_a_refusal_are_counted(counted):
    before = samples(counted)
    for _ in range(3):
        assert counted.post("/attribute", json=ASK).status_code == 200
    assert counted.post("/attribute", json={}).status_code == 422
    assert counted.get("/nothing/at/all").status_code == 404
    after = samples(counted)

    def more(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after[key] - before.get(key, 0)

    ok = {"method": "POST", "route": "/attribute", "status": "200"}
    assert more("whence_requests_total", **ok) == 3
    assert more("whence_requests_total", **(ok | {"status": "422"})) == 1
    assert more("whence_requests_total", method="GET", route="other", status="404") == 1
    assert more("whence_rejected_total", reason="invalid-request") == 1
    assert more("whence_request_seconds_count", route="/attribute") == 4
    for part in ("queue_wait", "gradient", "search", "fetch"):
        assert more(f"whence_{part}_seconds_count") == 3
    assert more("whence_gradient_seconds_sum") > 0
    assert more("whence_batch_requests_sum") == 3
    assert more("whence_batch_tokens_sum") > 3
    assert after[("whence_queue_depth", ())] == 0
    assert more("whence_cache_misses_total") == 3
    assert after[("whence_requests_in_flight", ())] == 1  # the one that asks
    rows = counted.get("/info").json()["index"]["passages"]
    assert after[("whence_index_rows", ())] == rows
    assert after[("whence_ready", ())] == 1


def test_info_tells_what_recent_attributions_took(tiny, until_ready):
    attributor = LocalAttributor(tiny.engine, queue_size=8)
    with TestClient(create_app(attributor)) as client:
        until_ready(client)
        assert client.get("/info").json()["expected_ms"] is None
        took = []
        for _ in range(2):
            took.append(client.post("/attribute", json=ASK).json()["timings_ms"])
        client.post("/attribute", json={**ASK, "explain": True})  # costs more; most ask without
        expected = client.get("/info").json()["expected_ms"]
        assert expected == pytest.approx(sum(sum(parts.values()) for parts in took) / 2)


def test_what_callers_make_up_makes_no_series(counted):
    before = len(samples(counted))
    for number in range(20):
        counted.get(f"/documents/{number}")
        counted.get(f"/made/up/{number}")
        counted.request(f"METHOD{number}", "/attribute")
    assert len(samples(counted)) - before < 40  # a histogram of a new route has 17 series


def test_what_is_answered_from_the_cache_is_counted_as_that(counted):
    metrics = Metrics()
    result = AttributeResult.model_validate(counted.post("/attribute", json=ASK).json())
    metrics.answered(result.model_copy(update={"cached": True}))
    told = metrics.exposition().decode()
    assert "whence_cache_hits_total 1.0" in told
    assert "whence_gradient_seconds_count 0.0" in told


def test_while_loading_it_is_not_ready_and_still_measured(tiny):
    may_load = threading.Event()

    def load():
        may_load.wait(20)
        return tiny.engine()

    with TestClient(create_app(LocalAttributor(load, queue_size=1))) as client:
        assert samples(client)[("whence_ready", ())] == 0
        may_load.set()


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_every_metric_of_the_dashboard_is_there(counted):
    # Series with labels only come with their first event.
    counted.post("/attribute", json={})
    there = {name for name, _ in samples(counted)}
    asked = {
        name
        for expression in expressions()
        for name in re.findall(r"\b(?:whence|process)_\w+", expression)
    }
    assert len(asked) > 15
    assert asked <= there


def test_the_dashboard_has_a_title_a_unit_and_a_place_for_each_panel():
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    assert all(p["title"] and p["fieldConfig"]["defaults"]["unit"] for p in DASHBOARD["panels"])


def test_info_tells_numbers_and_switches_of_the_settings_and_no_names(tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(index_dir="secret-folder", keys_file="secret.json", queue_size=7)
    shown = shown_settings(settings)
    assert shown["queue_size"] == 7
    assert "secret" not in json.dumps(shown)
    app = create_app(LocalAttributor(tiny.engine, queue_size=1), shown_settings=shown)
    with TestClient(app) as client:
        while client.get("/readyz").status_code != 200:
            pass
        told = client.get("/info").json()
    assert told["settings"] == shown
    assert told["index"]["quality"] == []  # not measured


@pytest.fixture
def own_logging():
    """The handlers and the level of the tests come back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_request_is_a_line_of_json_with_its_id(counted, capfd, own_logging):
    configure_logging(log_format="json", level="info")
    counted.post("/attribute", json=ASK, headers={"X-Request-Id": "abc-1"})
    counted.get("/no%0Athing", headers={"X-Request-Id": "abc-2"})
    counted.get("/livez")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    ours = [line for line in lines if line["logger"] == "whence.requests"]
    assert [(line["request_id"], line["status"]) for line in ours] == [
        ("abc-1", 200),
        ("abc-2", 404),
    ]
    assert ours[0]["path"] == "/attribute"
    assert ours[0]["milliseconds"] > 0
    assert ours[1]["problem"] == "not-found"
    assert "king" not in json.dumps(lines)


def test_a_line_for_people_cannot_be_forged(counted, capfd, own_logging):
    configure_logging(log_format="text", level="info")
    counted.get("/x%0AERROR forged", headers={"X-Request-Id": "abc-3"})
    lines = [line for line in capfd.readouterr().err.splitlines() if "whence.requests" in line]
    assert len(lines) == 1
    assert lines[0].endswith("404 [abc-3]")


def test_an_exception_is_in_the_line():
    cause = (NotFound, NotFound("gone\nfor good"), None)
    record = logging.LogRecord("a", logging.ERROR, "", 1, "%s failed", ("it",), cause)
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["level"], entry["message"]) == ("error", "it failed")
    assert "NotFound" in entry["exception"]


@pytest.fixture
def audited(tiny, tmp_path):
    log = tmp_path / "audit" / "log.jsonl"
    app = create_app(LocalAttributor(tiny.engine, queue_size=1), audit=AuditLog(log))

    @app.post("/things/{name}")
    def act(name: str, _access: AdministratorDep) -> str:
        if name == "lost":
            raise NotFound("It is not there. Look elsewhere.")
        return name

    with TestClient(app) as client:
        yield client, log


def test_what_an_administrator_does_is_written_down_before_and_after(audited):
    client, log = audited
    client.post("/things/one", headers={"X-Request-Id": "r-1"})
    client.post("/things/lost", headers={"X-Request-Id": "r-2"})
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(e["what"], e["request_id"], e["outcome"]) for e in entries] == [
        ("POST /things/one", "r-1", "begun"),
        ("POST /things/one", "r-1", "done"),
        ("POST /things/lost", "r-2", "begun"),
        ("POST /things/lost", "r-2", "failed: NotFound"),
    ]
    assert all(e["who"] == "nobody" and e["time"].endswith("+00:00") for e in entries)


def test_what_cannot_be_written_down_is_not_done(tmp_path):
    done = []
    log = AuditLog(tmp_path)  # a folder: it cannot be written to
    with pytest.raises(StorageFull), log.action("a", "b"):
        done.append(1)
    assert done == []


def test_the_audit_log_is_only_added_to_by_however_many(tmp_path):
    path = tmp_path / "log"
    path.write_text('{"what": "before"}\n')

    def act(number: int) -> None:
        with AuditLog(path).action("x" * 500, f"action {number}"):
            pass

    threads = [threading.Thread(target=act, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert entries[0] == {"what": "before"}
    assert len(entries) == 1 + 2 * 8


class _Collector(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_traces_go_where_they_are_wanted_and_continue_the_callers(tiny, monkeypatch, until_ready):
    collector = HTTPServer(("127.0.0.1", 0), _Collector)
    collector.got = []  # type: ignore[attr-defined]
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{collector.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with TestClient(create_app(LocalAttributor(tiny.engine, queue_size=1))) as client:
        until_ready(client)
        answer = client.post("/attribute", json=ASK, headers=parent).json()
        client.get("/livez")
    collector.shutdown()
    collector.server_close()
    spans = [
        (resource.resource.attributes, span)
        for path, body in collector.got  # type: ignore[attr-defined]
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if path == "/v1/traces"
    ]
    assert all("whence" in str(attributes) for attributes, _ in spans)
    assert {span.trace_id.hex() for _, span in spans} == {trace}
    named = {span.name: span for _, span in spans}
    (request,) = [span for name, span in named.items() if name.startswith("POST")]
    parts = [named[part] for part in ("queue", "gradient", "search", "explain", "fetch")]
    assert len(spans) == 1 + len(parts)
    assert {part.parent_span_id for part in parts} == {request.span_id}
    for part in parts:  # as long as the answer says, to the float's last digit
        length_ms = (part.end_time_unix_nano - part.start_time_unix_nano) / 1e6
        assert length_ms == pytest.approx(answer["timings_ms"][part.name], abs=1e-3)
    for before, after in pairwise(parts):
        assert before.end_time_unix_nano == after.start_time_unix_nano
    assert parts[-1].end_time_unix_nano <= request.end_time_unix_nano


def test_without_an_endpoint_no_tracing_is_loaded():
    program = "import sys, api.server; print([m for m in sys.modules if 'opentelemetry.exp' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_cors_is_off_unless_an_origin_is_listed(tiny):
    asking = {"Origin": "https://chat.example"}
    preflight = asking | {"Access-Control-Request-Method": "POST"}
    for origins, allowed in (((), None), (("https://chat.example",), "https://chat.example")):
        app = create_app(LocalAttributor(tiny.engine, queue_size=1), cors_origins=origins)
        with TestClient(app) as client:
            for answer in (
                client.get("/livez", headers=asking),
                client.options("/attribute", headers=preflight),
            ):
                assert answer.headers.get("access-control-allow-origin") == allowed
            other = client.get("/livez", headers={"Origin": "https://evil.example"})
            assert "access-control-allow-origin" not in other.headers
