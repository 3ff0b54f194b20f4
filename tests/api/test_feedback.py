"""Thumbs up and down: who may, what is kept, and that the chain knows nothing of them."""

from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from service.keys import KeyRing, create_key
from service.ledger.feedback import given
from service.ledger.recorded import Recording
from service.ledger.recorder import Recorder
from service.ledger.verify import verify_ledger
from service.local import LocalAttributor

EVER = (0, 2**62)
THUMB = {
    "request_id": "r1",
    "document_id": "shelf/1",
    "passage_id": "shelf/1#0",
    "verdict": "up",
    "note": "just so",
}


@pytest.fixture
def served(tiny, tmp_path):
    """A client of a server with a ledger, its recording and the keys of a reader and a writer."""
    recording = Recording(Recorder(str(tmp_path / "l.db"), tmp_path / "spool"))
    file, now = tmp_path / "keys.json", datetime.now(UTC)
    scopes = (frozenset({"read"}), frozenset({"write"}))
    keys = [create_key(file, name="a", scopes=s, now=now)[1] for s in scopes]
    app = create_app(LocalAttributor(tiny.engine), recording=recording, keys=KeyRing(file))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, recording, [{"Authorization": f"Bearer {key}"} for key in keys]


def test_the_newest_opinion_of_a_passage_holds(served):
    client, recording, (reader, _) = served
    for _ in range(2):  # sent twice, kept once
        assert client.post("/feedback", json=THUMB, headers=reader).json() == {"status": "kept"}
    client.post("/feedback", json=THUMB | {"verdict": "down"}, headers=reader)
    client.post("/feedback", json=THUMB | {"passage_id": None}, headers=reader)
    of_the_passage = {key: THUMB[key] for key in ("request_id", "passage_id", "verdict")}
    client.post("/feedback", json=of_the_passage | {"verdict": "down"}, headers=reader)
    kept = {(o.passage_id, o.verdict, o.note) for o in given(recording.ledger, *EVER)}
    assert kept == {("shelf/1#0", "down", ""), ("", "up", "just so")}
    assert verify_ledger(recording.ledger).entries == 0


def test_whoever_may_ask_may_give_an_opinion_and_who_only_sends_documents_may_not(
    served, is_problem
):
    client, recording, (reader, writer) = served
    is_problem(client.post("/feedback", json=THUMB, headers=writer), 403, "forbidden")
    assert given(recording.ledger, *EVER) == []
    assert client.post("/feedback", json=THUMB, headers=reader).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "sideways"},
        {"request_id": "../x"},
        {"document_id": ""},
        {"document_id": None, "passage_id": None},
        {"note": "x" * 2_001},
        {"note": "\0"},
        {"stars": 5},
    ],
)
def test_what_is_no_opinion_is_refused(served, is_problem, change):
    client, _, (reader, _) = served
    is_problem(
        client.post("/feedback", json=THUMB | change, headers=reader), 422, "invalid-request"
    )
