"""`POST /attribute/batch`: many requests at once, with the limits of each."""

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from service.local import LocalAttributor
from service.schemas import BatchResult

ASK = {"prompt": "where is the king?", "response": "the king is north of the river", "top_k": 3}


def test_each_item_has_the_answer_it_would_have_alone(client):
    asked = [ASK, ASK | {"response": "south"}, ASK | {"ranking": "influence"}]
    answer = client.post("/attribute/batch", json={"requests": asked})
    assert answer.status_code == 200
    batch = BatchResult.model_validate_json(answer.content)
    assert batch.request_id == answer.headers["x-request-id"]
    for number, (body, item) in enumerate(zip(asked, batch.items, strict=True)):
        alone = client.post("/attribute", json=body).json()
        assert item.problem is None
        assert item.result is not None
        assert item.result.request_id == f"{batch.request_id}.{number}"
        hits = [hit.passage_id for hit in item.result.proponents]
        assert hits == [hit["passage_id"] for hit in alone["proponents"]]


def test_an_item_fails_by_itself(client):
    asked = [ASK, ASK | {"response": "king " * 400}, ASK | {"span": {"start": 0, "end": 999}}]
    items = client.post("/attribute/batch", json={"requests": asked}).json()["items"]
    assert items[0]["result"]["proponents"]
    assert items[0]["problem"] is None
    assert [item["problem"]["type"].split(":")[-1] for item in items[1:]] == [
        "query-too-long",
        "invalid-input",
    ]
    assert [item["problem"]["status"] for item in items[1:]] == [422, 422]
    assert items[1]["result"] is None


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"requests": []}, "requests"),
        ({"requests": [ASK] * 33}, "requests"),
        ({}, "requests"),
        ({"requests": [ASK, ASK | {"top_k": 101}]}, "requests.1.top_k"),
        ({"requests": [ASK | {"response": "x" * 200_001}]}, "requests.0.response"),
        ({"requests": [ASK], "top_k": 1}, "top_k"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_breaks_a_bound_is_named(client, is_problem, body, names):
    answer = client.post("/attribute/batch", json=body)
    assert names in is_problem(answer, 422, "invalid-request")["detail"]


def test_items_that_find_no_place_are_refused_each_by_itself(tiny, until_ready):
    attributor = LocalAttributor(tiny.engine, queue_size=3)
    with TestClient(create_app(attributor)) as client:
        until_ready(client)
        items = client.post("/attribute/batch", json={"requests": [ASK] * 8}).json()["items"]
        statuses = [200 if item["problem"] is None else item["problem"]["status"] for item in items]
        assert statuses == [200] * 3 + [429] * 5


def test_a_batch_that_finds_no_place_at_all_is_refused_as_one(tiny, is_problem):
    def load():
        raise ZeroDivisionError

    with TestClient(create_app(LocalAttributor(load))) as client:
        answer = client.post("/attribute/batch", json={"requests": [ASK] * 2})
        is_problem(answer, 503, "not-ready")
