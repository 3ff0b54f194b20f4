import json

import pytest
from pydantic import BaseModel, ValidationError

from service import parts, schemas
from service.schemas import MAX_CHARACTERS, AttributeRequest

MODELS = [
    model
    for model in (vars(schemas) | vars(parts)).values()
    if isinstance(model, type) and issubclass(model, BaseModel) and model is not BaseModel
]


def request(**fields):
    return AttributeRequest.model_validate({"prompt": "p", "response": "r", **fields})


def test_defaults():
    found = request()
    assert (found.top_k, found.ranking, found.opponents) == (10, "relative", True)
    assert found.span is None
    assert found.filter is None


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"response": ""},
        {"prompt": 3},
        {"prompt": None},
        {"prompt": "x" * (MAX_CHARACTERS + 1)},
        {"response": "\ud83d"},
        {"top_k": 0},
        {"top_k": 101},
        {"top_k": True},
        {"top_k": "10"},
        {"top_k": 2.5},
        {"ranking": "cosine"},
        {"opponents": "yes"},
        {"span": {"start": 3, "end": 3}},
        {"span": {"start": -1, "end": 3}},
        {"span": {"start": 1}},
        {"span": [1, 2]},
        {"filter": {}},
        {"filter": {"owners": []}},
        {"filter": {"owners": [""]}},
        {"filter": {"owners": "Anna"}},
        {"filter": {"owners": ["x"] * 1001}},
        {"filter": {"licences": ["x"]}},
        {"measurement": "perplexity"},
        {"measurement": "contrast"},
        {"measurement": "margin", "alternative": "other"},
        {"alternative": "other"},
        {"measurement": "contrast", "alternative": ""},
        {"measurement": "contrast", "alternative": "r"},
        {"explain": "yes"},
    ],
    ids=str,
)
def test_bounds_are_in_the_types(fields):
    with pytest.raises(ValidationError):
        request(**fields)


def test_requests_are_frozen_and_hashable():
    found = request(filter={"owners": ["a"]}, span={"start": 0, "end": 1})
    assert hash(found) == hash(request(filter={"owners": ["a"]}, span={"start": 0, "end": 1}))
    with pytest.raises(ValidationError, match="frozen"):
        found.top_k = 3


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_described_and_every_plain_one_has_an_example(model):
    for name, field in model.model_fields.items():
        nested = json.dumps(model.model_json_schema()["properties"][name])
        assert field.description or "$ref" in nested, name
        assert field.examples or "$ref" in nested, name


def test_examples_are_valid():
    examples = {name: f.examples[0] for name, f in AttributeRequest.model_fields.items()}
    AttributeRequest.model_validate(examples)
