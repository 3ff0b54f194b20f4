"""The dashboard over HTTP: the same numbers everywhere, and nothing for who may not see all."""

import csv
import io
import json
import re
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from cli.main import app as command
from service.keys import KeyRing, create_key
from service.ledger.recorded import Recording
from service.ledger.recorder import Recorder
from service.local import LocalAttributor

YEAR = str(datetime.now(UTC).year)


@pytest.fixture(scope="module")
def served(tiny, tmp_path_factory, until_ready):
    """A client of a server with a ledger of five answers, and where the ledger is."""
    folder = tmp_path_factory.mktemp("served")
    url = str(folder / "l.db")
    recording = Recording(Recorder(url, folder / "spool"))
    app = create_app(
        LocalAttributor(tiny.engine, queue_size=8), recording=recording, index_dir=tiny.index_dir
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        until_ready(client)
        for number in range(5):
            body = {"prompt": "who?", "response": f"the king of gold {number}"}
            assert client.post("/attribute", json=body).status_code == 200
        while recording.ledger.head().sequence < 6:  # the owners and five answers
            pass
        yield client, url


def owners_of(answer) -> list[list]:
    (found,) = (one for one in answer.json()["tables"] if one["name"] == "owners")
    return found["rows"]


def test_dashboard_valuations_and_command_line_agree_to_the_last_digit(served):
    client, url = served
    told = client.get("/valuations", params={"period": YEAR}).json()["owners"]
    expected = [list(line.values()) for line in told]
    assert owners_of(client.get("/dashboard/views/owners", params={"period": YEAR})) == expected
    said = CliRunner().invoke(command, ["valuations", "--ledger", url, "--period", YEAR])
    names = list(told[0])
    by_command = json.loads(said.stdout)["owners"]
    assert [[line[name] for name in names] for line in by_command] == expected
    file = client.get("/dashboard/views/owners/owners.csv", params={"period": YEAR})
    read = list(csv.reader(io.StringIO(file.text)))[1:]
    assert [[float(cell) for cell in row[1:]] for row in read] == [row[1:] for row in expected]


def test_the_report_is_one_file_with_the_same_digits(served, tiny, tmp_path):
    client, url = served
    out = tmp_path / "report.html"
    arguments = ["report", str(tiny.index_dir), "--out", str(out), "--ledger", url]
    done = CliRunner().invoke(command, [*arguments, "--tables", str(tmp_path / "tables")])
    assert done.exit_code == 0, done.output
    page = out.read_text("utf-8")
    for row in owners_of(client.get("/dashboard/views/owners")):
        assert all(f'<data value="{value}"' in page for value in row[1:])
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(?:src|href)=", ours)
    assert (tmp_path / "tables" / "quality-outliers.parquet").is_file()


@pytest.mark.parametrize("name", ["owners", "documents", "answers", "quality"])
def test_every_view_and_every_table_of_it_is_there(served, name):
    client, _ = served
    view = client.get(f"/dashboard/views/{name}").json()
    for one in view["tables"]:
        for form in ("csv", "parquet"):
            file = client.get(f"/dashboard/views/{name}/{one['name']}.{form}")
            assert file.status_code == 200
            assert f"{one['name']}.{form}" in file.headers["content-disposition"]
    for figure in view["figures"]:
        assert figure["plot"]["data"]


def test_what_is_not_there_says_so(served, is_problem):
    client, _ = served
    is_problem(client.get("/dashboard/views/nothing"), 422, "invalid-request")
    is_problem(client.get("/dashboard/views/owners/nothing.csv"), 404, "not-found")
    is_problem(client.get("/dashboard/views/owners?period=soon"), 422, "invalid-input")
    is_problem(client.get("/dashboard/views/document"), 422, "invalid-input")
    is_problem(client.get("/dashboard/views/document?id=none"), 404, "not-found")


def test_a_server_without_a_ledger_shows_what_the_index_says(client, is_problem):
    told = is_problem(client.get("/dashboard/views/owners"), 404, "not-found")
    assert "WHENCE_LEDGER_URL" in told["detail"]


def test_a_key_of_some_owners_sees_no_dashboard(tiny, tmp_path, is_problem):
    file = tmp_path / "keys.json"
    _, key = create_key(
        file, name="a", scopes=frozenset({"read"}), now=datetime.now(UTC), owners=("Anna",)
    )
    app = create_app(LocalAttributor(tiny.engine), keys=KeyRing(file), index_dir=tiny.index_dir)
    with TestClient(app) as client:
        bearer = {"Authorization": f"Bearer {key}"}
        is_problem(client.get("/dashboard/views/quality", headers=bearer), 403, "forbidden")


def test_the_page_runs_scripts_of_this_server_alone(served):
    client, _ = served
    page = client.get("/dashboard")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "'unsafe-inline'" not in client.get("/").headers["content-security-policy"]
    assert len(client.get("/dashboard/plotly.min.js").content) > 1_000_000
