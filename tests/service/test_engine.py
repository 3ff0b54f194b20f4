"""The engine against the arithmetic of DESIGN done slowly from the files of the index."""

import numpy as np
import pytest

from influence.basis import basis_of
from influence.encoder import GradientEncoder
from influence.errors import IndexMismatch, InvalidInput, NotFound, QueryTooLong
from influence.model import load_model
from influence.store import IndexReader
from influence.tokens import query_tokens
from service.engine import Engine
from service.schemas import NOTHING_STANDS_OUT, NOTHING_STANDS_OUT_IN_FILTER, AttributeRequest


def ask(engine, prompt="where is the king?", response="the king is north of the river", **fields):
    request = AttributeRequest(prompt=prompt, response=response, **fields)
    return engine.attribute(request, request_id="test")


@pytest.fixture(scope="module")
def slow(tiny):
    """Influence and relative influence of every row on a query, one inner product at a time."""
    reader = IndexReader.open(tiny.index_dir)
    loaded = load_model(tiny.model_dir, device="cpu")
    encoder = GradientEncoder(loaded, basis_of(reader))

    def compute(prompt, response):
        tokens = query_tokens(prompt, response, loaded.tokenizer, max_length=256)
        q = encoder.encode([tokens]).vectors[0].double().numpy()
        rows = {}
        for row, unit in enumerate(np.concatenate(reader.vector_shards()).astype(np.float64)):
            cosine = float(unit @ q / np.linalg.norm(q))
            influence = float(unit @ q) * float(reader.norms[row])
            rows[reader.passage(row).id] = (influence, cosine)
        return rows

    return compute


PROMPT, RESPONSE = "where is the king?", "the king is north of the river"


@pytest.mark.parametrize("memory", [8 * 2**30, 36_000], ids=["float32", "float16"])
@pytest.mark.parametrize("ranking", ["relative", "influence"])
def test_hits_are_those_of_the_slow_arithmetic(tiny, slow, ranking, memory):
    engine = tiny.engine(search_memory_bytes=memory)
    assert engine.info().index.search == ("float32" if memory > 36_000 else "float16")
    found = ask(engine, PROMPT, RESPONSE, ranking=ranking, top_k=7)
    engine.close()
    rows = slow(PROMPT, RESPONSE)
    by = 1 if ranking == "relative" else 0
    order = sorted(rows, key=lambda passage: -rows[passage][by])
    assert [hit.passage_id for hit in found.proponents] == order[:7]
    assert [hit.passage_id for hit in found.opponents] == order[::-1][:7]
    for hit in (*found.proponents, *found.opponents):
        influence, cosine = rows[hit.passage_id]
        assert hit.influence == pytest.approx(influence, rel=1e-4, abs=1e-5)
        assert hit.relative_influence == pytest.approx(cosine, abs=1e-5)
    assert [hit.rank for hit in found.opponents] == list(range(1, 8))


def test_owners_have_the_sum_of_all_their_passages(engine, tiny, slow):
    owner_of = {record["id"]: record.get("owner") for record in tiny.records}
    expected: dict = {}
    for passage, (influence, _) in slow(PROMPT, RESPONSE).items():
        owner = owner_of[passage.split("#")[0]]
        expected[owner] = expected.get(owner, 0) + influence
    found = ask(engine, PROMPT, RESPONSE, top_k=1, filter={"owners": ["Anna"]}).owners
    assert {o.owner for o in found} == {"Anna", "Bruno", "Chloe", None}
    # The store rounds each vector to float16 (2^-11), the owners' sums are not rounded.
    tolerance = 2.0**-11 * sum(abs(i) for i, _ in slow(PROMPT, RESPONSE).values())
    for owner in found:
        assert owner.influence == pytest.approx(expected[owner.owner], abs=tolerance)
    assert sum(owner.share for owner in found) == pytest.approx(1)


def test_the_same_question_gives_the_same_bits(engine):
    def bits():
        return ask(engine, PROMPT, RESPONSE, top_k=4).model_dump_json(exclude={"timings_ms"})

    first = bits()
    for number in range(100):
        if number % 10 == 0:
            ask(engine, "something else?", "of gold " * (number // 10 + 1) + "in between")
        assert bits() == first


def test_every_training_record_finds_itself_and_stands_out(engine, tiny):
    for record in tiny.records[:-1]:
        found = ask(engine, record["prompt"], record["response"], top_k=1)
        assert found.proponents[0].document_id == record["id"]
        assert found.proponents[0].relative_influence == pytest.approx(1, abs=1e-3)
        assert found.proponents[0].relative_influence <= 1
        assert found.query.stands_out
        assert found.query.message is None


def test_a_hit_carries_what_the_corpus_says_of_its_document(engine, tiny):
    record = tiny.records[5]
    hit = ask(engine, record["prompt"], record["response"], top_k=1).proponents[0]
    assert hit.passage_id == "shelf/5#0"
    assert hit.text == record["response"]
    assert (hit.title, hit.source, hit.owner) == ("Volume 5", "upper", "Bruno")
    assert (hit.licence, hit.url) == ("public domain", "https://example.org/5")
    text = engine.document(hit.document_id).text
    assert text[hit.start : hit.end] == hit.text


def test_what_is_unlike_every_document_does_not_stand_out(engine):
    found = ask(engine, "zxqv?", "0x7f 0x7e @@ ~~ || 99 ##", top_k=3)
    assert not found.query.stands_out
    assert found.query.message == NOTHING_STANDS_OUT
    assert len(found.proponents) == 3  # weak hits are shown, and their confidence says so
    assert all(hit.confidence < 0.95 for hit in found.proponents)


def test_top_k_beyond_the_index_returns_every_row(engine):
    found = ask(engine, top_k=100)
    rows = engine.info().index.passages
    assert rows < 100
    assert len(found.proponents) == len(found.opponents) == rows
    assert [h.passage_id for h in found.proponents] == [h.passage_id for h in found.opponents][::-1]
    scores = [h.relative_influence for h in found.proponents]
    assert scores == sorted(scores, reverse=True)


def test_opponents_only_where_asked_for(engine):
    with_opponents, without = ask(engine, top_k=3), ask(engine, top_k=3, opponents=False)
    assert without.opponents == ()
    assert without.proponents == with_opponents.proponents


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({"owners": ["Anna"]}, lambda hit: hit.owner == "Anna"),
        ({"owners": ["Anna", "Chloe"]}, lambda hit: hit.owner in ("Anna", "Chloe")),
        ({"sources": ["upper"]}, lambda hit: hit.source == "upper"),
        (
            {"owners": ["Anna"], "sources": ["lower"]},
            lambda hit: (hit.owner, hit.source) == ("Anna", "lower"),
        ),
        ({"owners": ["Nobody"]}, lambda hit: False),
        ({"owners": ["Anna", "Nobody"]}, lambda hit: hit.owner == "Anna"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("ranking", ["relative", "influence"])
def test_a_filter_is_the_unfiltered_ranking_with_the_others_struck_out(
    engine, wanted, matches, ranking
):
    everything = ask(engine, top_k=100, ranking=ranking)
    for k in (2, 100):
        found = ask(engine, top_k=k, ranking=ranking, filter=wanted)
        for side in ("proponents", "opponents"):
            expected = [h.passage_id for h in getattr(everything, side) if matches(h)][:k]
            assert [h.passage_id for h in getattr(found, side)] == expected


def test_a_filter_that_keeps_the_source_out_says_so(engine, tiny):
    record = tiny.records[5]  # of Bruno
    kept_out = ask(engine, record["prompt"], record["response"], filter={"owners": ["Anna"]})
    assert not kept_out.query.stands_out
    assert kept_out.query.message == NOTHING_STANDS_OUT_IN_FILTER
    let_in = ask(engine, record["prompt"], record["response"], filter={"owners": ["Bruno"]})
    assert let_in.query.stands_out


def test_a_span_explains_its_own_tokens(engine, tiny):
    record = tiny.records[3]
    cut, end = record["response"].index(" ", 60), len(record["response"])
    whole, *parts = (
        ask(engine, record["prompt"], record["response"], top_k=100, span=span)
        for span in (None, {"start": 0, "end": cut}, {"start": cut, "end": end})
    )
    assert sum(p.query.tokens for p in parts) == whole.query.tokens
    assert sum(p.query.loss_nats for p in parts) == pytest.approx(whole.query.loss_nats, rel=1e-5)
    # Gradients add up as losses do, and so do influences.
    total, first, second = (
        {hit.passage_id: hit.influence for hit in found.proponents} for found in (whole, *parts)
    )
    for passage, influence in total.items():
        assert first[passage] + second[passage] == pytest.approx(influence, rel=1e-3, abs=1e-3)


def test_a_response_longer_than_the_context_is_refused(engine):
    with pytest.raises(QueryTooLong, match="256"):
        ask(engine, response="king " * 400)


def test_a_span_outside_the_response_is_refused(engine):
    with pytest.raises(InvalidInput, match="400"):
        ask(engine, span={"start": 3, "end": 400})


def test_documents(engine, tiny):
    record = tiny.records[5]
    document = engine.document("shelf/5")
    assert document.text == f"{record['prompt']}\n\n{record['response']}"
    assert document.metadata == {"number": 5}
    long = engine.document("long text")
    assert long.text == tiny.records[-1]["text"]
    assert len(long.passages) > 1
    assert [p.id for p in long.passages] == [f"long text#{n}" for n in range(len(long.passages))]
    with pytest.raises(NotFound, match="'shelf/99'"):
        engine.document("shelf/99")


def test_info_tells_what_is_served(engine, tiny):
    info = engine.info()
    assert info.model == "model"  # not the folder it lies in
    assert info.index.id == "library"
    assert info.index.documents == len(tiny.records)
    assert info.index.owners == 3
    assert info.index.version == IndexReader.open(tiny.index_dir).version
    assert info.index.exact


@pytest.mark.parametrize(("seed", "chat", "what"), [(1, False, "weights"), (0, True, "tokenizer")])
def test_another_model_is_refused(tiny, tmp_path, save_tiny_model, seed, chat, what):
    other = save_tiny_model(tmp_path / "other", seed=seed, chat=chat)
    with pytest.raises(IndexMismatch, match=rf"{what} [0-9a-f]{{12}}.*{what} [0-9a-f]{{12}}"):
        Engine.load(tiny.index_dir, other, device="cpu")


def test_the_model_is_the_one_that_the_index_names(tiny):
    engine = Engine.load(tiny.index_dir, device="cpu")
    assert engine.loaded.name == str(tiny.model_dir)
    engine.close()


def test_an_index_larger_than_the_memory_allowed_is_read_from_disk_and_ranks_the_same(tiny, engine):
    small = tiny.engine(search_memory_bytes=1000)
    assert small.info().index.search != engine.info().index.search
    assert small.info().index.exact
    got, want = ask(small, top_k=20), ask(engine, top_k=20)
    small.close()
    assert [hit.passage_id for hit in got.proponents] == [hit.passage_id for hit in want.proponents]
    np.testing.assert_allclose(
        [hit.relative_influence for hit in got.proponents],
        [hit.relative_influence for hit in want.proponents],
        atol=1e-6,  # the same float16 rows; sums of float32 in another order
    )


def test_a_calibration_in_the_manifest_decides_what_stands_out(tiny, tmp_path, engine):
    record = tiny.records[5]
    assert ask(engine, record["prompt"], record["response"]).query.stands_out
    calibrated = tiny.engine()
    manifest = calibrated.reader.manifest
    strict = manifest.model_copy(
        update={"calibration": manifest.calibration.model_copy(update={"null_best_z": (1e4,) * 50})}
    )
    calibrated.reader.manifest = strict
    assert not ask(calibrated, record["prompt"], record["response"]).query.stands_out
    calibrated.close()
