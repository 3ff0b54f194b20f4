"""A chat that another server answers: what goes through unchanged, and what if it fails."""

import json
import time

import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from api.app import create_app
from service.chat.upstream import UpstreamChat
from service.local import LocalAttributor

ASK = [{"role": "user", "content": "who is the king?"}]
WORDS = ["the ", "king ", "is ", "north"]


class Elsewhere:
    """A small server of the OpenAI API, which remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.mood = "well"
        self.app = FastAPI()
        self.app.get("/v1/models")(self.models)
        self.app.post("/v1/chat/completions")(self.completions)

    async def models(self) -> dict:
        return {
            "object": "list",
            "data": [{"id": "elsewhere", "object": "model", "created": 7, "owned_by": "them"}],
        }

    async def completions(self, request: Request):
        body = await request.json()
        self.asked.append(body)
        if self.mood == "refuses":
            error = {"message": "no such thing", "type": "theirs", "param": "x", "code": "odd"}
            return JSONResponse({"error": error}, 418)
        if not body.get("stream"):
            message = {"role": "assistant", "content": "".join(WORDS)}
            choice = {"index": 0, "message": message, "finish_reason": "stop", "own": 3}
            return {**self.common("chat.completion"), "choices": [choice]}
        return StreamingResponse(self.events(), media_type="text/event-stream")

    async def events(self):
        for number, word in enumerate(WORDS):
            if self.mood == "breaks" and number == 2:
                return
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None, "own": 3}
            event = {**self.common("chat.completion.chunk"), "choices": [choice]}
            yield f"data: {json.dumps(event)}\n\n"
        yield "data: [DONE]\n\n"

    def common(self, kind: str) -> dict:
        return {"id": "theirs", "object": kind, "created": 7, "model": "elsewhere"}


@pytest.fixture(scope="module")
def elsewhere():
    return Elsewhere()


@pytest.fixture(scope="module")
def client(tiny, elsewhere, on_a_socket):
    with on_a_socket(elsewhere.app) as theirs:
        chat = UpstreamChat(f"http://127.0.0.1:{theirs}/v1", key="secret", at_once=4)
        app = create_app(LocalAttributor(tiny.engine), chat=chat)
        with on_a_socket(app) as port:
            address = f"http://127.0.0.1:{port}"
            with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0) as client:
                end = time.monotonic() + 60
                while client._client.get(f"{address}/readyz").status_code != 200:
                    assert time.monotonic() < end
                    time.sleep(0.05)
                yield client


@pytest.fixture(autouse=True)
def well(elsewhere):
    elsewhere.mood = "well"
    yield
    elsewhere.mood = "well"


def test_what_is_asked_and_answered_goes_through_unchanged(client, elsewhere):
    answer = client.chat.completions.create(
        model="elsewhere", messages=ASK, extra_body={"best_of": 3}
    )
    assert elsewhere.asked[-1] == {"messages": ASK, "model": "elsewhere", "best_of": 3}
    assert answer.id == "theirs"
    assert answer.choices[0].model_extra["own"] == 3
    assert [card.id for card in client.models.list()] == ["elsewhere"]


@pytest.mark.parametrize("stream", [False, True])
def test_only_whence_attributes(client, elsewhere, stream):
    answer = client.chat.completions.create(
        model="elsewhere", messages=ASK, stream=stream, extra_body={"attribution": {"top_k": 2}}
    )
    assert "attribution" not in elsewhere.asked[-1]
    last = list(answer)[-1] if stream else answer
    attribution = last.model_extra["attribution"]
    assert len(attribution["proponents"]) == 2
    whole = {"prompt": ASK[0]["content"], "response": "".join(WORDS), "top_k": 2}
    address = str(client.base_url).removesuffix("v1/")
    asked = client._client.post(f"{address}attribute", json=whole).json()
    assert attribution["proponents"] == asked["proponents"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_theirs(client, elsewhere, stream):
    elsewhere.mood = "refuses"
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="elsewhere", messages=ASK, stream=stream)
    assert refused.value.status_code == 418
    assert (refused.value.code, refused.value.param) == ("odd", "x")


def test_an_answer_that_breaks_off_is_no_answer(client, elsewhere):
    elsewhere.mood = "breaks"
    stream = client.chat.completions.create(model="elsewhere", messages=ASK, stream=True)
    assert next(stream).choices[0].delta.content == WORDS[0]
    with pytest.raises(openai.APIError, match="ended in the middle"):
        list(stream)


def test_a_server_that_is_not_there_is_502(tiny, on_a_socket):
    chat = UpstreamChat("http://127.0.0.1:9/v1", key=None, at_once=4)
    with on_a_socket(create_app(LocalAttributor(tiny.engine), chat=chat)) as port:
        address = f"http://127.0.0.1:{port}/v1"
        with openai.OpenAI(base_url=address, api_key="-", max_retries=0) as client:
            with pytest.raises(openai.InternalServerError) as refused:
                client.models.list()
            assert refused.value.status_code == 502
            assert "WHENCE_CHAT_UPSTREAM" in str(refused.value)
