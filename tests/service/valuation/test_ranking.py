"""One scan for a whole validation set says what the engine says query by query."""

import json

import pytest

from cli.value import value
from influence.errors import CorpusError, InvalidInput
from service.schemas import AttributeRequest

QUERIES = [("who was king?", "the king of gold"), ("which river?", "north of the city is wine")]


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    path = tmp_path_factory.mktemp("validation") / "v.jsonl"
    lines = [json.dumps({"prompt": p, "response": r}) for p, r in QUERIES]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_worth_of_a_document_is_the_sum_of_its_influences(
    tiny, engine, validation, capsys, tmp_path
):
    value(tiny.index_dir, validation, model=str(tiny.model_dir), device="cpu",
          keep=tmp_path / "keep.txt", budget=3)  # fmt: skip
    ranked = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected: dict[str, float] = {}
    for prompt, response in QUERIES:
        request = AttributeRequest(prompt=prompt, response=response, top_k=100, opponents=False)
        for hit in engine.attribute(request, request_id="test").proponents:
            expected[hit.document_id] = expected.get(hit.document_id, 0.0) + hit.influence
    # The engine adds up D = 256 products in float32, here they are float64.
    scale = max(map(abs, expected.values()))
    assert {one["document_id"]: one["influence"] for one in ranked} == pytest.approx(
        expected, abs=1e-5 * scale
    )
    assert ranked == sorted(ranked, key=lambda one: -one["influence"])
    assert sum(one["self_influence"] for one in ranked) == pytest.approx(
        float(engine.reader.owners.self_influence.sum())
    )
    keep = (tmp_path / "keep.txt").read_text().splitlines()
    assert keep == [one["document_id"] for one in ranked[:3]]


def test_a_threshold_that_keeps_nothing_writes_nothing(tiny, validation, tmp_path):
    with pytest.raises(InvalidInput, match="none would be kept"):
        value(tiny.index_dir, validation, model=str(tiny.model_dir), device="cpu",
              keep=tmp_path / "keep.txt", at_least=1e30)  # fmt: skip
    assert not (tmp_path / "keep.txt").exists()


@pytest.mark.parametrize(("text", "told"), [("", "is empty"), ('{"prompt": "a"}', "line 1")])
def test_a_validation_set_that_is_none_is_refused(tiny, tmp_path, text, told):
    path = tmp_path / "v.jsonl"
    path.write_text(text)
    with pytest.raises(CorpusError, match=told):
        value(tiny.index_dir, path)
