"""Requests that go through the model together get the answers that they would get alone."""

import numpy as np
import pytest

from influence.errors import QueryTooLong
from service.encoding import encode_each
from service.schemas import AttributeRequest

QUESTIONS = [
    AttributeRequest(prompt="where is the king?", response="north of the river " * n, top_k=5)
    for n in (1, 2, 5, 9)
]


def read(engine, request, number=0):
    return engine.read(request, request_id=str(number))


def test_answers_together_are_those_alone(engine):
    asked = [read(engine, request, number) for number, request in enumerate(QUESTIONS)]
    for one, together in zip(asked, engine.attribute_many(asked), strict=True):
        alone = engine.attribute(one.request, request_id=one.request_id)
        assert together.request_id == alone.request_id
        for side in ("proponents", "opponents"):
            for a, b in zip(getattr(together, side), getattr(alone, side), strict=True):
                assert a.passage_id == b.passage_id
                # Rounding of float32 through a few dozen sums, the worst of which cancel to 1e-2.
                assert a.relative_influence == pytest.approx(b.relative_influence, abs=1e-4)
                assert a.influence == pytest.approx(b.influence, rel=1e-3, abs=1e-4)
        assert together.query.loss_nats == pytest.approx(alone.query.loss_nats, rel=1e-5)
        assert [o.owner for o in together.owners] == [o.owner for o in alone.owners]


def test_the_same_request_in_one_batch_twice_has_one_answer(engine):
    first, second = engine.attribute_many([read(engine, QUESTIONS[0], n) for n in range(2)])
    differing = {"request_id", "timings_ms"}
    # Rows of one product: the same operations on the same numbers.
    assert [h.passage_id for h in first.proponents] == [h.passage_id for h in second.proponents]
    assert (
        first.model_dump(exclude=differing)["query"]
        == second.model_dump(exclude=differing)["query"]
    )


def test_asked_alone_a_hundred_times_in_between_batches_it_gives_the_same_bits(engine):
    alone = engine.attribute(QUESTIONS[1], request_id="x")
    engine.attribute_many([read(engine, request) for request in QUESTIONS])
    for _ in range(100):
        again = engine.attribute(QUESTIONS[1], request_id="x")
        assert again.proponents == alone.proponents
        assert again.owners == alone.owners


def test_an_error_of_one_is_not_the_others(engine, monkeypatch):
    asked = [read(engine, request, number) for number, request in enumerate(QUESTIONS)]
    hits = engine.texts.hits

    def broken(found, *rest):
        if engine.asked_now == 1:
            raise KeyError("only this one")
        return hits(found, *rest)

    found = engine._found

    def numbered(one, *rest):
        engine.asked_now = int(one.request_id)
        return found(one, *rest)

    monkeypatch.setattr(engine.texts, "hits", broken)
    monkeypatch.setattr(engine, "_found", numbered)
    answers = engine.attribute_many(asked)
    assert isinstance(answers[1], KeyError)
    assert [answers[n].request_id for n in (0, 2, 3)] == ["0", "2", "3"]


def test_a_pass_that_fails_is_taken_again_one_by_one(engine):
    queries = [read(engine, request).query for request in QUESTIONS]
    passes = []
    encode = engine.encoder.encode

    class Small:
        """As an encoder on a device that holds two sequences."""

        def __getattr__(self, name):
            return getattr(engine.encoder, name)

        def encode(self, sequences):
            passes.append(len(sequences))
            if len(sequences) > 2 or len(sequences[0]) == len(queries[3].sequences[0]):
                raise MemoryError
            return encode(sequences)

    found = encode_each(Small(), queries)  # type: ignore[arg-type]
    assert passes == [4, 1, 1, 1, 1]
    assert isinstance(found[3], MemoryError)
    for query, one in zip(queries[:3], found, strict=False):
        (alone,) = encode_each(engine.encoder, [query])
        np.testing.assert_array_equal(one.vector, alone.vector)  # type: ignore[union-attr]


def test_a_query_over_the_budget_is_refused_before_the_model(tiny):
    engine = tiny.engine(max_query_tokens=20)
    assert engine.info().context_length == 20
    with pytest.raises(QueryTooLong, match="at most 20"):
        engine.read(QUESTIONS[3], request_id="x")
    engine.close()
