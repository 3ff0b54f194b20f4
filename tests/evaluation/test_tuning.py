"""A choice of settings: the best one there is, and made without the queries it is reported on."""

import json
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from evaluation.catalogue import whence
from evaluation.index_sample import by_recall, by_tail_patch, sample_index
from evaluation.lds import spearman
from evaluation.methods import Dampings
from evaluation.tail_patch import tail_patch
from evaluation.tuning import Choice, curves, plots, tune
from indexer.progress import Silence
from influence.errors import CorpusError

WORDS = ("river", "queen", "ship", "gold", "wine")


@pytest.fixture(scope="module")
def criterion(digits):
    subsets = digits.subsets.astype(np.float64)
    return lambda scores: spearman(subsets @ scores.T, digits.outputs)


def _tune(digits, criterion):
    return tune(
        digits.subjects[0],
        criterion,
        digits.reported,
        ranks=(4, 8),
        dims=(64, 256),
        reporter=Silence(),
    )


def test_the_choice_is_the_best_and_its_figure_is_of_other_queries(digits, criterion):
    tuned = _tune(digits, criterion)
    assert tuned.curve[tuned.best] == max(tuned.curve.values())
    best = tuned.best
    fitted = whence(best.rank, best.dims, joint=True).fit(digits.subjects[0])
    scores = fitted.scores(
        fitted.capture(digits.subjects[0].queries), Dampings(best.damping, best.joint_damping)
    )
    values = criterion(scores.relative if best.ranking == "relative" else scores.influence)
    assert tuned.curve[best] == pytest.approx(values[~digits.reported].mean())
    assert tuned.reported.mean == pytest.approx(values[digits.reported].mean())
    assert {choice.rank for choice in tuned.curve} == {4, 8}
    assert f"| rank | **{best.rank}** | " in curves(tuned, "LDS")


def test_queries_that_are_reported_on_have_no_say(digits, criterion):
    """Were they turned round, the same settings would be chosen."""

    def turned(scores):
        return np.where(digits.reported, -100 * criterion(scores), criterion(scores))

    straight, other = _tune(digits, criterion), _tune(digits, turned)
    assert other.best == straight.best
    assert other.curve == straight.curve
    assert other.reported.mean == pytest.approx(-100 * straight.reported.mean)
    assert isinstance(straight.best, Choice)


def test_queries_of_both_kinds_are_needed(digits, criterion):
    for reported in (np.ones(4, dtype=bool), np.zeros(4, dtype=bool)):
        with pytest.raises(ValueError, match="of 4 queries are reported on"):
            tune(digits.subjects[0], criterion, reported, reporter=Silence())


def test_the_curves_are_drawn_with_every_rank_and_the_dampings_of_the_choice(digits, criterion):
    tuned = _tune(digits, criterion)
    drawn = {name: ElementTree.fromstring(svg) for name, svg in plots(tuned, "LDS").items()}
    lines = {name: len(svg.findall("{*}polyline")) for name, svg in drawn.items()}
    joint = {choice.joint_damping for choice in tuned.curve}
    assert lines == {"tune-dims.svg": 2, "tune-dampings.svg": len(joint)}
    points = drawn["tune-dims.svg"].findall("{*}circle")
    assert len(points) == len({(choice.rank, choice.dims) for choice in tuned.curve})


@pytest.fixture
def reader(build, new_llama, tokenizer, as_loaded, monkeypatch):
    """An index of ten short documents, whose model the command line loads."""
    llama = as_loaded(new_llama(), tokenizer)
    words = ("river", "queen", "ship", "gold", "wine", "north", "city", "bread", "war", "peace")
    records = [
        {"id": f"d{i}", "text": f"the {a} of {words[-i]} in {a} and {words[i // 2]} is {i} miles"}
        for i, a in enumerate(words)
    ]
    monkeypatch.setattr("influence.model.load_model", lambda *_, **__: llama)
    return build(records, llama), llama


def test_an_index_is_tuned_by_its_own_halves(reader, tmp_path):
    asked = ["tune", str(reader[0].index_dir), "--count", "6", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, asked)
    assert "MRR on queries that nothing was picked on: " in done.output, done.exception
    assert "whence index … --rank " in done.output
    assert (tmp_path / "out" / "tune.md").read_text() == done.stdout
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".md", ".svg"}
    wrong = CliRunner().invoke(app, ["tune"])
    assert wrong.exit_code == 2


def test_tail_patch_chooses_where_no_document_is_known(reader, tmp_path):
    index, llama = reader
    lines = [{"prompt": f"the {a} of", "response": f" {b} is gold"} for a, b in pairwise(WORDS)]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, lines)))
    sample = sample_index(index, llama, questions, passages=10, count=0, seed=0)
    with pytest.raises(CorpusError, match="No question names the documents"):
        by_recall(sample)
    scores = np.random.default_rng(0).normal(size=(len(lines), 10))
    got = by_tail_patch(sample, top_k=2)(scores)
    for q, tokens in enumerate(sample.subject.queries):
        first = [sample.subject.examples[row] for row in np.argsort(-scores[q])[:2]]
        # The order of the step's passages is another here, which moves float32 sums.
        assert got[q] == pytest.approx(tail_patch(sample.subject.task, tokens, first), abs=1e-4)
    done = CliRunner().invoke(
        app,
        ["tune", str(index.index_dir), "--queries", str(questions), "--measure", "tail-patch"],
    )
    assert "tail-patch, nats on queries that nothing was picked on: " in done.output
