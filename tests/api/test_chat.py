"""The chat, asked by the official client of the OpenAI API over a real socket."""

import time

import openai
import pytest

from api.app import create_app
from service.cache import MemoryCache
from service.caching import CachingAttributor
from service.chat.local import LocalChat
from service.local import LocalAttributor

ASK = [{"role": "user", "content": "who is the king of the city?"}]


@pytest.fixture(scope="module")
def address(tiny, on_a_socket):
    """A server that chats, with two answers at once."""
    local = LocalAttributor(tiny.engine, queue_size=8)
    chat = LocalChat(local, at_once=2, max_tokens=200)
    app = create_app(CachingAttributor(local, MemoryCache(2**20)), chat=chat)
    with on_a_socket(app) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                client.models.list()
                break
            except openai.APIStatusError:
                time.sleep(0.05)
        yield client


@pytest.fixture(scope="module")
def model(client):
    (card,) = client.models.list().data
    return card.id


def say(client, model, **options):
    given = {"max_tokens": 12, "temperature": 0, "messages": ASK, **options}
    return client.chat.completions.create(model=model, **given)


def test_an_answer_has_its_reason_and_its_tokens(client, model):
    answer = say(client, model)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.model == model


def test_the_answer_is_the_models_own_greedy_one(client, model, tiny):
    engine = tiny.engine()
    tokenizer, own = engine.loaded.tokenizer, engine.loaded.model
    prompt = tokenizer(ASK[0]["content"], return_tensors="pt")
    written = own.generate(**prompt, do_sample=False, max_new_tokens=12)
    engine.close()
    new = written[0, prompt["input_ids"].shape[1] :]
    assert say(client, model).choices[0].message.content == tokenizer.decode(
        new, skip_special_tokens=True
    )


def test_a_stream_is_the_same_answer_in_pieces(client, model):
    whole = say(client, model, max_tokens=30)
    events = list(say(client, model, max_tokens=30, stream=True))
    assert events[0].choices[0].delta.role == "assistant"
    assert "".join(e.choices[0].delta.content or "" for e in events) == (
        whole.choices[0].message.content
    )
    assert [e.choices[0].finish_reason for e in events if e.choices[0].finish_reason] == ["length"]
    assert len({e.id for e in events}) == 1
    assert len(events) > 5


def test_a_stream_tells_its_tokens_where_that_is_asked_for(client, model):
    *_, last = say(client, model, stream=True, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage.completion_tokens == 12


def test_it_ends_before_a_stop(client, model):
    whole = say(client, model, max_tokens=40).choices[0].message.content
    stop = whole[10:13]
    for stream in (False, True):
        got = say(client, model, max_tokens=40, stop=[stop, "never there"], stream=stream)
        if stream:
            events = list(got)
            text = "".join(e.choices[0].delta.content or "" for e in events)
            reason = events[-1].choices[0].finish_reason
        else:
            text, reason = got.choices[0].message.content, got.choices[0].finish_reason
        assert text == whole[: whole.index(stop)]
        assert reason == "stop"


def test_a_seed_draws_the_same_answer_and_another_seed_another(client, model):
    def draw(seed):
        answer = say(client, model, temperature=1.5, top_p=0.95, seed=seed, max_tokens=20)
        return answer.choices[0].message.content

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content",
        ),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"attribution": {"top": 3}}}, "attribution.top"),
        ({"extra_body": {"best_of": 3}}, "best_of"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client, model, options, parameter):
    with pytest.raises(openai.BadRequestError) as refused:
        say(client, model, **options)
    assert refused.value.param == parameter
    assert refused.value.type == "invalid_request_error"


def test_a_parameter_that_asks_for_nothing_is_no_wish(client, model):
    say(client, model, n=1, frequency_penalty=0, presence_penalty=0, logprobs=False, user="anna")


def test_parts_of_text_are_one_text(client, model):
    content = ASK[0]["content"]
    parts = [{"type": "text", "text": content[:9]}, {"type": "text", "text": content[9:]}]
    split = say(client, model, messages=[{"role": "user", "content": parts}])
    assert split.choices[0].message.content == say(client, model).choices[0].message.content


def test_a_model_that_is_not_served_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as refused:
        say(client, "gpt-17")
    assert "gpt-17" in str(refused.value)


def test_a_conversation_without_room_for_an_answer_says_so(client, model):
    with pytest.raises(openai.BadRequestError) as refused:
        say(client, model, messages=[{"role": "user", "content": "the king " * 300}])
    assert refused.value.code == "context_length_exceeded"


def test_a_broken_body_is_refused_in_their_form(client):
    answer = client._client.post(f"{client.base_url}chat/completions", content=b"{")
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_the_last_event_carries_the_attribution(client, model, address):
    options = {"attribution": {"top_k": 3, "opponents": False}}
    *answer, last = say(client, model, stream=True, extra_body=options)
    text = "".join(e.choices[0].delta.content or "" for e in answer)
    assert last.choices == []
    attribution = last.model_extra["attribution"]
    assert len(attribution["proponents"]) == 3
    assert attribution["opponents"] == []
    assert {o["owner"] for o in attribution["owners"]} == {"Anna", "Bruno", "Chloe", None}

    whole = say(client, model, extra_body=options)
    assert whole.choices[0].message.content == text
    shown = [(h["passage_id"], h["influence"]) for h in attribution["proponents"]]
    again = whole.model_extra["attribution"]["proponents"]
    assert [(h["passage_id"], h["influence"]) for h in again] == shown


def test_an_answer_is_attributed_later_under_its_request_id(client, model, address):
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=ASK, max_tokens=12, temperature=0
    )
    request_id = raw.headers["x-request-id"]
    own = client.base_url.copy_with(path="/")
    later = client._client.get(f"{own}attributions/{request_id}?top_k=2")
    assert later.status_code == 200
    found = later.json()
    assert found["request_id"] == request_id
    assert len(found["proponents"]) == 2
    asked = {
        "prompt": ASK[0]["content"],
        "response": raw.parse().choices[0].message.content,
        "top_k": 2,
    }
    at_once = client._client.post(f"{own}attribute", json=asked).json()
    assert at_once["proponents"] == found["proponents"]
    assert client._client.get(f"{own}attributions/nothing").status_code == 404
