"""`POST /attribute` over a real engine, and everything that can be wrong with a request."""

import json

import pytest

from service.schemas import AttributeRequest, AttributeResult

ASK = {"prompt": "where is the king?", "response": "the king is north of the river"}


def test_an_answer_is_that_of_the_engine(client, tiny):
    answer = client.post("/attribute", json=ASK | {"top_k": 3})
    assert answer.status_code == 200
    found = AttributeResult.model_validate_json(answer.content)
    engine = tiny.engine()
    expected = engine.attribute(AttributeRequest(**ASK, top_k=3), request_id=found.request_id)
    engine.close()
    same = {"timings_ms"}
    assert found.model_dump(exclude=same) == expected.model_dump(exclude=same)
    assert found.request_id == answer.headers["x-request-id"]
    assert all(value >= 0 for value in found.timings_ms.model_dump().values())


def test_a_training_record_comes_back_as_its_own_source(client, tiny):
    record = tiny.records[9]
    body = {"prompt": record["prompt"], "response": record["response"]}
    found = client.post("/attribute", json=body).json()
    assert found["proponents"][0]["document_id"] == record["id"]
    assert found["query"]["stands_out"]


def test_top_k_beyond_the_index_gives_all_it_has(client):
    found = client.post("/attribute", json=ASK | {"top_k": 100}).json()
    rows = client.get("/info").json()["index"]["passages"]
    assert rows < 100
    assert len(found["proponents"]) == len(found["opponents"]) == rows


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"prompt": ""}, "prompt"),
        ({"response": ""}, "response"),
        ({"response": None}, "response"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 101}, "top_k"),
        ({"top_k": "ten"}, "top_k"),
        ({"ranking": "cosine"}, "ranking"),
        ({"measurement": "perplexity"}, "measurement"),
        ({"measurement": "contrast"}, "needs an alternative"),
        ({"alternative": "the queen"}, "has no use for an alternative"),
        ({"span": {"start": 5, "end": 5}}, "span"),
        ({"filter": {"owners": []}}, "filter.owners"),
        ({"filter": {"owner": "Anna"}}, "filter.owner"),
        ({"prompt": "x" * 200_001}, "prompt"),
        ({"x" * 5_000: 1}, "xxx"),
        ({f"field{n}": n for n in range(500)}, "495 more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_breaks_a_bound_is_named(client, is_problem, fields, names):
    problem = is_problem(client.post("/attribute", json=ASK | fields), 422, "invalid-request")
    assert names in problem["detail"]
    assert len(problem["detail"]) <= 1_001


def test_a_response_longer_than_the_context(client, is_problem):
    answer = client.post("/attribute", json=ASK | {"response": "king " * 400})
    problem = is_problem(answer, 422, "query-too-long")
    assert problem["title"] == "Query too long"
    assert "256" in problem["detail"]


def test_a_span_outside_the_response(client, is_problem):
    answer = client.post("/attribute", json=ASK | {"span": {"start": 0, "end": 9_999}})
    assert "9999" in is_problem(answer, 422, "invalid-input")["detail"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "says"),
    [
        (b'{"prompt": "p", ', 422, "invalid-request", "not JSON"),
        (b"", 422, "invalid-request", "JSON object"),
        (b"null", 422, "invalid-request", "JSON object"),
        (b"[]", 422, "invalid-request", "JSON object"),
        (b'"text"', 422, "invalid-request", "JSON object"),
        (b'{"prompt": "p", "response": "\xff\xfe"}', 400, None, "UTF-8"),
        (b'{"prompt": "p", "response": "\\ud83d"}', 422, "invalid-request", "response"),
        (b'{"prompt": "p", "response": "r", "\\ud83d": 1}', 422, "invalid-request", "string"),
        (b"[" * 100_000, 400, None, "JSON"),
        (b'{"prompt": "p", "response": "r", "top_k": 1e999}', 422, "invalid-request", "top_k"),
        (b'{"prompt": "p", "response": "r", "top_k": NaN}', 422, "invalid-request", "top_k"),
        (b'{"prompt": "p", "response": "r", "top_k": ' + b"9" * 9_999 + b"}", 400, None, "JSON"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bodies_that_are_no_request(client, is_problem, body, status, kind, says):
    headers = {"Content-Type": "application/json"}
    problem = is_problem(client.post("/attribute", content=body, headers=headers), status, kind)
    assert says in problem["detail"]


def test_a_body_that_does_not_say_it_is_json(client, is_problem):
    answer = client.post(
        "/attribute", content=json.dumps(ASK), headers={"Content-Type": "text/plain"}
    )
    problem = is_problem(answer, 422, "invalid-request")
    assert "Content-Type: application/json" in problem["detail"]


def test_text_of_any_script_goes_through(client):
    body = {
        "prompt": "Où? 在哪里? 🙂",
        "response": "Là-bas, 那里 \U0001f3f3️\u200d\U0001f308 \x00 e\u0301",
    }
    assert client.post("/attribute", json=body).status_code == 200
