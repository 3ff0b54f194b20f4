"""Answers that are written beside attributions: nobody runs into anybody, nobody is forgotten."""

import json
import socket
import threading
import time
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from service.chat.local import LocalChat
from service.keys import KeyRing, create_key
from service.local import LocalAttributor

CHAT = {"messages": [{"role": "user", "content": "who?"}], "temperature": 1, "seed": 1}
ATTRIBUTE = {"prompt": "who?", "response": "the king of the river", "explain": True, "top_k": 3}
BODY = json.dumps({**CHAT, "model": "model", "stream": True, "max_tokens": 200, "seed": 3}).encode()


def hits(answer) -> list:
    found = answer.json()
    return [found["query"], found["proponents"], found["opponents"], found["owners"]]


@pytest.fixture(scope="module")
def chatting(tiny):
    """A server and its chat, which writes two answers at once."""
    local = LocalAttributor(tiny.engine, queue_size=8)
    chat = LocalChat(local, at_once=2, max_tokens=200)
    return create_app(local, chat=chat), chat


@pytest.fixture(scope="module")
def client(chatting, until_ready):
    with TestClient(chatting[0], raise_server_exceptions=False) as client:
        yield until_ready(client)


def until(true, deadline_s: float = 60) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_attributions_beside_answers_are_those_without(client):
    alone = hits(client.post("/attribute", json=ATTRIBUTE))
    answers = []

    def chat() -> None:
        body = {**CHAT, "model": "model", "max_tokens": 150, "stop": ["never there"]}
        answers.append(client.post("/v1/chat/completions", json=body))

    threads = [threading.Thread(target=chat) for _ in range(2)]
    for thread in threads:
        thread.start()
    beside = []
    while any(thread.is_alive() for thread in threads):
        beside.append(hits(client.post("/attribute", json=ATTRIBUTE)))
    for thread in threads:
        thread.join(60)
    assert beside
    assert all(one == alone for one in beside)  # to the bit
    said = {answer.json()["choices"][0]["message"]["content"] for answer in answers}
    assert len(said) == 1  # of one seed, side by side


def test_more_answers_than_may_be_at_once_are_429(chatting, client):
    _, chat = chatting
    chat._writing += 2
    try:
        refused = client.post("/v1/chat/completions", json={**CHAT, "model": "model"})
    finally:
        chat._writing -= 2
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["type"] == "rate_limit_error"


def test_an_answer_ends_when_its_caller_leaves(tiny, on_a_socket):
    local = LocalAttributor(tiny.engine, queue_size=8)
    chat = LocalChat(local, at_once=1, max_tokens=200)
    ended = []
    write = chat._pieces

    async def watched(task, engine):
        try:
            async for piece in write(task, engine):
                yield piece
        finally:
            ended.append(task)

    chat._pieces = watched
    with on_a_socket(create_app(local, chat=chat)) as port:
        until(lambda: local.ready)
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = (
                "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
            )
            connection.sendall(head.encode() + BODY)
            assert b"200 OK" in connection.recv(1000)
        until(lambda: ended and chat._writing == 0)


def test_a_server_without_a_chat_says_so(tiny, until_ready):
    with TestClient(create_app(LocalAttributor(tiny.engine))) as client:
        refused = until_ready(client).get("/v1/models")
    assert refused.status_code == 404
    assert "WHENCE_CHAT_UPSTREAM" in refused.json()["error"]["message"]


def test_what_a_key_asked_is_not_told_to_another(tiny, tmp_path, until_ready):
    file = tmp_path / "keys.json"
    now = datetime.now(UTC)
    keys = [create_key(file, name=n, scopes=frozenset({"read"}), now=now)[1] for n in "ab"]
    app = create_app(LocalAttributor(tiny.engine), keys=KeyRing(file))
    mine, theirs = ({"Authorization": f"Bearer {key}"} for key in keys)
    with TestClient(app) as client:
        until_ready(client)
        asked = client.post("/attribute", json=ATTRIBUTE, headers=mine)
        where = f"/attributions/{asked.headers['x-request-id']}"
        assert hits(client.get(where, headers=mine)) == hits(asked)
        assert client.get(where, headers=theirs).status_code == 404


def test_a_conversation_is_attributed_behind_what_was_said_before(client):
    before = [
        {"role": "system", "content": "be brief. "},
        {"role": "user", "content": "where? "},
        {"role": "assistant", "content": "in the north. "},
    ]
    body = {
        "model": "model",
        "messages": [*before, *CHAT["messages"]],
        "max_tokens": 10,
        "temperature": 0,
        "attribution": {"top_k": 3},
    }
    answer = client.post("/v1/chat/completions", json=body).json()
    asked = {
        "context": before,
        "prompt": "who?",
        "response": answer["choices"][0]["message"]["content"],
        "top_k": 3,
    }
    at_once = client.post("/attribute", json=asked).json()
    assert answer["attribution"]["proponents"] == at_once["proponents"]
    without = client.post("/attribute", json={**asked, "context": None}).json()
    assert without["query"]["loss_nats"] != at_once["query"]["loss_nats"]
