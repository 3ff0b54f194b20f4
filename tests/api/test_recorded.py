"""Answers are in the ledger before they leave, with the totals that they carry."""

import json
import time

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from cli.main import app
from influence.errors import InvalidInput
from service.ledger.chain import unpack_totals
from service.ledger.ledger import Ledger
from service.ledger.recorded import Recording, open_recording
from service.ledger.recorder import Recorder
from service.ledger.verify import verify_ledger
from service.local import LocalAttributor
from service.settings import Settings


@pytest.fixture
def served(tiny, tmp_path, until_ready):
    """A client of a server that records under a policy, and the ledger once it is closed."""

    def run(policy: str, ask):
        recording = Recording(Recorder(str(tmp_path / "l.db"), tmp_path / "spool"), policy)
        attributor = LocalAttributor(tiny.engine, queue_size=8)
        with TestClient(create_app(attributor, recording=recording)) as client:
            answers = ask(until_ready(client))
        ledger = Ledger(str(tmp_path / "l.db"))
        verify_ledger(ledger)
        stored = list(ledger.read())
        ledger.close()
        return answers, stored

    return run


def test_an_entry_has_the_totals_of_the_answer_to_the_last_bit(served):
    body = {"prompt": "who?", "response": "the king of gold"}

    def ask(client):
        answers = [client.post("/attribute", json=body | {"top_k": k}) for k in (1, 2)]
        assert [a.status_code for a in answers] == [200, 200], answers[0].text
        return [a.json() for a in answers]

    answers, (owners, *entries) = served("all", ask)
    names = json.loads(owners.body)["names"]
    assert [e.content["request_id"] for e in entries] == [a["request_id"] for a in answers]
    for answer, entry in zip(answers, entries, strict=True):
        stored = dict(zip(names, unpack_totals(entry.totals, len(names)).tolist(), strict=True))
        assert stored == {o["owner"] or "": o["influence"] for o in answer["owners"]}
        assert entry.weight == answer["query"]["tokens"]
        assert "king" not in entry.body


def test_only_billable_answers_count_where_the_policy_says_so(served):
    body = {"prompt": "who?", "response": "the king of gold"}

    def ask(client):
        for usage in (None, {"weight": 2.0}, {"weight": 3.0, "billable": False}):
            answer = client.post("/attribute", json=body | {"usage": usage})
            assert answer.status_code == 200, answer.text

    _, (_, *entries) = served("billable", ask)
    assert [entry.weight for entry in entries] == [2.0]


@pytest.mark.parametrize("weight", [0, -1, "NaN", 1e13])
def test_a_weight_that_is_none_is_refused(served, weight):
    body = {"prompt": "who?", "response": "the king", "usage": {"weight": weight}}

    def ask(client):
        assert client.post("/attribute", json=body).status_code == 422

    assert served("all", ask)[1] == []


def test_postgresql_needs_a_folder_for_its_spool(tmp_path):
    settings = Settings(index_dir=tmp_path, ledger_url="postgresql://localhost/whence")
    with pytest.raises(InvalidInput, match="WHENCE_LEDGER_SPOOL_DIR"):
        open_recording(settings)


def test_what_the_server_says_owners_are_worth_is_what_the_command_says(
    tiny, tmp_path, until_ready, capsys
):
    import datetime

    from cli.payout import valuations

    recording = Recording(Recorder(str(tmp_path / "l.db"), tmp_path / "spool"))
    attributor = LocalAttributor(tiny.engine, queue_size=8)
    period = str(datetime.datetime.now(datetime.UTC).year)
    with TestClient(create_app(attributor, recording=recording)) as client:
        until_ready(client).post("/attribute", json={"prompt": "who?", "response": "the king"})
        until_delivered(recording)
        told = client.get("/valuations", params={"period": period}).json()
        assert client.get("/payouts").json() == {"payouts": []}
        assert client.get("/owners").json() == {"owners": ["Anna", "Bruno", "Chloe"]}
        assert client.get("/valuations", params={"period": "soon"}).status_code == 422
    valuations(str(tmp_path / "l.db"), period)
    assert json.loads(capsys.readouterr().out) == told
    assert len(told["owners"]) == 4


def until_delivered(recording: Recording) -> None:
    deadline = time.monotonic() + 30
    while recording.ledger.head().sequence < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_server_without_a_ledger_says_so(client, is_problem):
    assert "WHENCE_LEDGER_URL" in is_problem(client.get("/payouts"), 404, "not-found")["detail"]


def test_valuations_over_http_and_by_the_command_agree_to_the_last_digit(served, tmp_path):
    year = str(time.gmtime().tm_year)

    def ask(client):
        for response in ("the king of gold", "north of the city", "wine and bread"):
            body = {"prompt": "who?", "response": response}
            assert client.post("/attribute", json=body).status_code == 200
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # entries are delivered behind the answers
            told = client.get("/valuations", params={"period": year})
            if told.status_code == 200 and told.json()["entries"] == 3:
                return told.json()
            time.sleep(0.05)
        raise AssertionError(told.text)

    told, _ = served("all", ask)
    done = CliRunner().invoke(
        app, ["valuations", "--ledger", str(tmp_path / "l.db"), "--period", year]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == told  # JSON has the shortest digits that are the same float
    assert len(told["owners"]) == 4
