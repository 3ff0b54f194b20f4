"""Influences in parts, through the engine: they add up, and they point at the right characters."""

import json
from dataclasses import replace

import pytest

from influence.errors import IndexCorrupt
from influence.model import load_model
from influence.tokens import document_passages
from service.engine import Engine
from service.schemas import AttributeRequest
from service.texts import Texts

PROMPT, RESPONSE = "where is the king?", "the king is north of the river"
CHATS = [
    {
        "id": f"chat{number}",
        "messages": [
            {"role": "system", "content": "you are a queen"},
            {"role": "user", "content": f"who was in the city {number}?"},
            {"role": "assistant", "content": f" the {word} 🐟 of Ärna  "},
            {"role": "user", "content": "and then?"},
            {"role": "assistant", "content": f"{word} of the north and of the river"},
        ],
    }
    for number, word in enumerate(("king", "ship", "wine", "bread", "gold", "silver"))
] + [{"id": "long", "text": "the queen and the ship of gold " * 12}]


def ask(engine, prompt=PROMPT, response=RESPONSE, **fields):
    request = AttributeRequest(prompt=prompt, response=response, **fields)
    return engine.attribute(request, request_id="test")


@pytest.fixture(scope="module")
def chat_engine(save_tiny_model, tmp_path_factory, small_settings):
    """An index of chats in the model's own template, and of one plain text in several passages."""
    from indexer.build import build_index
    from indexer.progress import Silence

    folder = tmp_path_factory.mktemp("chats")
    model = save_tiny_model(folder / "model", chat=True)
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(record) + "\n" for record in CHATS))
    loaded = load_model(model, device="cpu")
    build_index(
        str(corpus), loaded, folder / "index", small_settings(max_length=48), reporter=Silence()
    )
    engine = Engine.load(folder / "index", model, device="cpu")
    yield engine
    engine.close()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"measurement": "margin"},
        {"measurement": "log_prob", "span": {"start": 12, "end": 17}},
        {"measurement": "contrast", "alternative": "the king is south of the river, and gold"},
        {
            "measurement": "contrast",
            "alternative": "the king is east of the river",
            "span": {"start": 12, "end": 17},
        },
    ],
    ids=lambda fields: " ".join(map(str, fields.values())) or "loss",
)
@pytest.mark.parametrize("which", ["engine", "chat_engine"])
def test_every_way_of_splitting_adds_up_to_the_influence(request, which, fields):
    engine = request.getfixturevalue(which)
    found = ask(engine, top_k=6, explain=True, **fields)
    for hit in (*found.proponents, *found.opponents):
        parts = hit.explanation
        # The stored unit vector is rounded to float16, 2^-11 of each number; the gradient of the
        # explanation is not. So they differ by that share of |q| |z| at most, as do float32 sums.
        tolerance = 2**-11 * abs(hit.influence / hit.relative_influence)
        tokens = sum(part.influence for part in hit.tokens)
        assert tokens + parts.tokens_elsewhere == pytest.approx(hit.influence, abs=tolerance)
        assert sum(parts.kinds.values()) == pytest.approx(hit.influence, abs=tolerance)
        assert sum(layer.influence for layer in parts.layers) == pytest.approx(
            hit.influence, abs=tolerance
        )
        # The other side is taken from the stored vector itself; float32 sums remain.
        of_response = [*parts.response, *(parts.alternative or ())]
        bears = sum(part.influence for part in of_response) + parts.response_elsewhere
        assert bears == pytest.approx(hit.influence, abs=tolerance / 100)
        assert (parts.alternative is None) == ("alternative" not in fields)


def test_tokens_are_those_of_the_document_as_it_was_indexed(chat_engine):
    found = ask(chat_engine, top_k=100, explain=True, opponents=False)
    numbers = {hit.passage_id: hit for hit in found.proponents}
    assert "long#2" in numbers
    for hit in found.proponents:
        document = chat_engine.texts.stored(hit.document_id)
        passages = document_passages(document, chat_engine.loaded.tokenizer, max_length=48)
        (tokens,) = (p.tokens for p in passages if p.id == hit.passage_id)
        shown = [span for span in tokens.offsets[1:] if 0 <= span[0] < span[1]]
        # Bytes of one character are one part.
        assert [part.start for part in hit.tokens] == sorted({start for start, _ in shown})
        assert all(
            part.end <= following.start
            for part, following in zip(hit.tokens, hit.tokens[1:], strict=False)
        )
    fish = next(hit for hit in found.proponents if "🐟" in hit.text)
    text = chat_engine.document(fish.document_id).text
    assert "🐟" in [text[part.start : part.end].strip() for part in fish.tokens]


def test_parts_of_the_response_are_its_explained_words_and_what_led_to_them(engine):
    span = {"start": 12, "end": 17}
    found = ask(engine, top_k=3, explain=True, span=span)
    for hit in found.proponents:
        words = [(RESPONSE[p.start : p.end], p.influence) for p in hit.explanation.response]
        assert "".join(word for word, _ in words) == RESPONSE
        # Nothing behind the span has a gradient: a causal model does not look ahead.
        assert all(not p.influence for p in hit.explanation.response if p.start >= span["end"])
        assert sum(p.influence for p in hit.explanation.response if p.start < span["end"])


def test_an_explanation_changes_nothing_else(engine):
    left_out = {"timings_ms": True, "proponents": {"__all__": {"tokens", "explanation"}}}
    left_out["opponents"] = left_out["proponents"]
    plain, explained = ask(engine), ask(engine, explain=True)
    assert plain.model_dump(exclude=left_out) == explained.model_dump(exclude=left_out)
    assert all(hit.tokens is hit.explanation is None for hit in plain.proponents)
    assert plain.timings_ms.explain == 0 < explained.timings_ms.explain


def test_an_explanation_reads_each_passage_once_and_the_query_once_more(engine):
    read = []
    trunk = engine.encoder.loss.trunk
    handle = trunk.register_forward_pre_hook(
        lambda _module, _args, inputs: read.append(len(inputs["input_ids"])), with_kwargs=True
    )
    try:
        rows = engine.info().index.passages
        ask(engine, top_k=100, explain=True)  # every row as proponent and as opponent
    finally:
        handle.remove()
    assert sum(read) == 1 + rows + 1


def test_a_measurement_has_its_value(engine):
    other = "the king is south of the river"
    loss, log_prob, margin = (
        ask(engine, measurement=name, top_k=5) for name in ("loss", "log_prob", "margin")
    )
    nats = loss.query.loss_nats
    assert loss.query.value == nats == -log_prob.query.value
    assert margin.query.value == pytest.approx(-nats, rel=1e-6)  # log(1 - p) is nothing here
    assert log_prob.proponents == loss.proponents
    contrast = ask(engine, measurement="contrast", alternative=other)
    expected = ask(engine, response=other).query.loss_nats - nats
    assert contrast.query.value == pytest.approx(expected, rel=1e-5)
    assert contrast.query.tokens == loss.query.tokens


def test_the_influences_of_a_contrast_are_the_difference_of_both_responses(engine):
    other = "the king is south of the river"
    of = {
        name: {hit.passage_id: hit for hit in ask(engine, top_k=100, **fields).proponents}
        for name, fields in (
            ("this", {}),
            ("other", {"response": other}),
            ("contrast", {"measurement": "contrast", "alternative": other}),
        )
    }
    for passage, hit in of["contrast"].items():
        this, that = of["this"][passage], of["other"][passage]
        # float32 sums of the two terms, which may cancel.
        scale = sum(abs(h.influence / h.relative_influence) for h in (this, that))
        assert hit.influence == pytest.approx(this.influence - that.influence, abs=1e-6 * scale)


class _WithoutTurns(Texts):
    """As an index that does not say who spoke."""

    def stored(self, document_id):
        document = super().stored(document_id)
        return replace(document, plain=document.text, messages=())


def test_tokens_that_are_not_those_of_the_index_are_refused(chat_engine):
    texts, chat_engine.texts = chat_engine.texts, _WithoutTurns(chat_engine.reader)
    try:
        with pytest.raises(IndexCorrupt, match=r"passage chat\d#\d are not those"):
            ask(chat_engine, explain=True)
    finally:
        chat_engine.texts = texts
