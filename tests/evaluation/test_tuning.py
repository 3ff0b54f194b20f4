"""A choice of settings: the best one there is, and made without the queries it is reported on."""

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from evaluation.catalogue import whence
from evaluation.lds import spearman
from evaluation.methods import Dampings
from evaluation.tuning import Choice, curves, tune
from indexer.progress import Silence


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


def test_an_index_is_tuned_by_its_own_halves(build, new_llama, tokenizer, as_loaded, monkeypatch):
    llama = as_loaded(new_llama(), tokenizer)
    words = ("river", "queen", "ship", "gold", "wine", "north", "city", "bread", "war", "peace")
    records = [
        {"id": f"d{i}", "text": f"the {a} of {words[-i]} in {a} and {words[i // 2]} is {i} miles"}
        for i, a in enumerate(words)
    ]
    reader = build(records, llama)
    monkeypatch.setattr("influence.model.load_model", lambda *_, **__: llama)
    done = CliRunner().invoke(app, ["tune", str(reader.index_dir), "--count", "6"])
    assert "MRR on queries that nothing was picked on: " in done.output, done.exception
    assert "whence index … --rank " in done.output
    wrong = CliRunner().invoke(app, ["tune"])
    assert wrong.exit_code == 2
