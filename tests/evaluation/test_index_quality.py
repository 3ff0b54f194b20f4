"""The ranking of an index measured by questions: against sums by hand, and from the command."""

import json
from datetime import date

import numpy as np
import pytest
from numpy.testing import assert_allclose
from typer.testing import CliRunner

from cli.evaluate import app
from cli.inspect import info
from evaluation.index_quality import as_quality, measure_retrieval, measure_tail_patch, table
from evaluation.questions import Question, own_halves, read_questions, second_half
from evaluation.rankings import (
    RANDOM,
    RELATIVE,
    influence_rankings,
    passage_tokens,
    query_vectors,
)
from evaluation.tail_patch import tail_patch
from indexer.progress import Silence
from influence.basis import basis_of
from influence.encoder import GradientEncoder, LanguageModelLoss
from influence.errors import CorpusError
from influence.store import IndexReader

RECORDS = [
    {"id": f"d{i}", "text": f"the {a} of the {b} in war and peace {i} is {a} {b} king miles {a}"}
    for i, (a, b) in enumerate(
        (a, b) for a in ("river", "queen", "ship") for b in ("gold", "wine", "north", "city")
    )
]


@pytest.fixture
def llama(new_llama, tokenizer, as_loaded):
    return as_loaded(new_llama(), tokenizer)


@pytest.fixture
def reader(build, llama) -> IndexReader:
    return build([*RECORDS, {"id": "long", "text": "war peace " * 40}], llama)


def _question(reader, llama, *documents):
    (first, *_) = own_halves(reader, llama.tokenizer, count=1, seed=0)
    return Question(first.tokens, first.text, documents)


def test_recall_and_mrr_are_those_counted_by_hand(reader, llama):
    questions = [_question(reader, llama, *names) for names in (("d0",), ("d3", "d5"), (), ("d7",))]
    scores = np.random.default_rng(0).normal(size=(4, len(reader)))
    measured = {
        m.measure: m.value.mean for m in measure_retrieval(reader, questions, {"drawn": scores})
    }
    ranks = []
    for question, row in zip(questions, scores, strict=True):
        best = {}
        for place, score in enumerate(row):
            name = reader.passage(place).document_id
            best[name] = max(score, best.get(name, -np.inf))
        order = sorted(best, key=lambda name: -best[name])
        rest = [name for name in order if name not in question.documents[1:]]
        if question.documents:
            first = min(question.documents, key=order.index)
            rest = [name for name in order if name == first or name not in question.documents]
            ranks.append(1 + rest.index(first))
    assert len(ranks) == 3
    assert measured == pytest.approx(
        {
            **{f"recall@{k}": np.mean([rank <= k for rank in ranks]) for k in (1, 5, 10)},
            "mrr": np.mean([1 / rank for rank in ranks]),
        }
    )


def test_rankings_are_products_with_what_the_encoder_gives(reader, llama):
    questions = own_halves(reader, llama.tokenizer, count=3, seed=1)
    found = influence_rankings(reader, query_vectors(reader, llama, questions, Silence()))
    encoder = GradientEncoder(llama, basis_of(reader))
    asked = encoder.vectors([q.tokens for q in questions]).double().numpy()
    rows = encoder.vectors(passage_tokens(reader, llama)).double().numpy()
    influence = asked @ rows.T
    size = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(rows, axis=1)[None, :]
    # Stored in fp16: a product of unit vectors is off by at most 2⁻¹¹.
    assert_allclose(found[RELATIVE], influence / size, atol=2**-11)
    assert_allclose(found["influence"] / size, influence / size, atol=2**-11)


def test_the_table_of_tail_patch_has_the_mean_of_single_steps(reader, llama):
    questions = own_halves(reader, llama.tokenizer, count=3, seed=1)
    passages = passage_tokens(reader, llama)
    draw = np.random.default_rng(1)
    rankings = {name: draw.random((3, len(reader))) for name in (RELATIVE, RANDOM)}
    measured = measure_tail_patch(
        llama, questions, passages, rankings, top_k=2, step=1e-2, reporter=Silence()
    )
    values = {(m.ranking, m.measure): m.value.mean for m in measured}
    task = LanguageModelLoss(llama)
    expected = {}
    for name, scores in rankings.items():
        expected[name] = [
            tail_patch(task, q.tokens, [passages[i] for i in np.argsort(-row)[:2]], step=1e-2)
            for q, row in zip(questions, scores, strict=True)
        ]
    over = np.mean(np.subtract(expected[RELATIVE], expected[RANDOM]))
    assert values[RELATIVE, "tail_patch"] == pytest.approx(np.mean(expected[RELATIVE]))
    assert values[RELATIVE, "tail_patch_over_random"] == pytest.approx(over)
    assert values[RANDOM, "tail_patch_over_random"] == 0
    (quality, _) = as_quality(measured, protocol="p", date=date(2026, 1, 2), prefix="own_")
    assert quality.measure == "own_tail_patch"
    assert quality.value == values[RELATIVE, "tail_patch"]
    assert "| random | " in table(measured)


def test_a_second_half_carries_loss_on_just_that(reader, llama):
    whole = passage_tokens(reader, llama)[0]
    half = second_half(whole)
    assert half.input_ids == whole.input_ids
    places = [place for place, target in enumerate(whole.targets) if target]
    assert [p for p, t in enumerate(half.targets) if t] == places[len(places) // 2 :]


def test_a_line_that_is_no_question_is_named(reader, llama, tmp_path):
    path = tmp_path / "questions.jsonl"
    for line, said in {
        "{": "line 2",
        '{"prompt": "p"}': "response: Field required",
        '{"prompt": "p", "response": "r", "documents": ["nobody"]}': "'nobody' has no passage",
        '{"prompt": "p", "response": "r", "answer": 1}': "answer: Extra inputs",
        '"text"': "the line: ",
    }.items():
        path.write_text(f'{{"prompt": "p", "response": "the king"}}\n{line}\n')
        with pytest.raises(CorpusError, match=said):
            read_questions(path, llama, reader)
    path.write_text("\n")
    with pytest.raises(CorpusError, match="is empty"):
        read_questions(path, llama, reader)


def test_figures_go_from_the_command_into_the_index(reader, llama, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("influence.model.load_model", lambda *_, **__: llama)
    path = tmp_path / "questions.jsonl"
    asked = {"prompt": "the river of", "response": " the gold", "documents": ["d0"]}
    path.write_text(json.dumps(asked) + "\n" + json.dumps({**asked, "documents": ["d1"]}))
    run = CliRunner().invoke
    index = str(reader.index_dir)
    own = run(app, ["retrieval", index, "--count", "4", "--attach"])
    assert "| relative influence |" in own.output
    assert "| BM25 |" in own.output
    run(app, ["retrieval", index, "--queries", str(path), "--attach"])
    patched = run(app, ["tail-patch", index, "--count", "2", "-k", "2", "--attach"])
    assert "| opponents by relative influence |" in patched.output
    quality = {q.measure: q for q in IndexReader.open(reader.index_dir).manifest.quality}
    assert {"own_recall@1", "recall@10", "mrr", "own_tail_patch_over_random"} <= set(quality)
    assert quality["recall@10"].protocol.startswith("2 questions of questions.jsonl, ")
    info(index)
    assert f"own_recall@1 {quality['own_recall@1'].value:.3f} [" in capsys.readouterr().out
