"""A comparison picks by some queries and reports on others; oracles get what they deserve."""

import json
from dataclasses import replace

import numpy as np
import pytest

from evaluation.comparison import compare
from evaluation.methods import Dampings, Scores
from evaluation.table import as_json, markdown
from indexer.progress import Silence


class Oracle:
    """Knows what each example is worth; under another damping on the unreported queries only."""

    name = "oracle"
    seconds = 0.0
    bytes_a_passage = 8
    grid = (Dampings(1.0), Dampings(2.0), Dampings(3.0))

    def __init__(self, worth, reported):
        self.worth = worth
        self.reported = reported

    def fit(self, subject):
        return self

    def capture(self, queries):
        return None

    def scores(self, queries, dampings):
        """1: right where it is reported, 2: right where it is picked, 3: never."""
        right = self.reported if dampings.layer == 1 else ~self.reported
        right = right & (dampings.layer < 3)
        scores = np.where(right[:, None], self.worth, -self.worth)
        return Scores(scores, scores)


@pytest.fixture
def trial(language):
    """Outputs that are exactly sums over the subsets."""
    draw = np.random.default_rng(0)
    queries, examples = len(language.reported), language.subsets.shape[1]
    worth = draw.normal(size=(queries, examples))
    exact = replace(language, outputs=language.subsets @ worth.T)
    return exact, worth


def test_dampings_are_picked_on_queries_that_are_not_reported(trial):
    exact, worth = trial
    (row,) = compare(exact, [Oracle(worth, exact.reported)], reference="oracle", reporter=Silence())
    assert row.dampings == Dampings(2.0)
    assert row.lds.mean == pytest.approx(-1)  # though another would have been right here
    assert [lds for _, lds in row.curve] == pytest.approx([-1, 1, -1])


def test_a_perfect_score_has_an_lds_of_one_and_recall_is_by_relative_influence(trial):
    exact, worth = trial
    oracle = Oracle(worth, np.zeros_like(exact.reported))
    oracle.grid = (Dampings(2.0),)
    (row,) = compare(exact, [oracle], reference="oracle", reporter=Silence())
    assert row.lds.mean == row.lds_relative == row.lds_averaged.mean == pytest.approx(1)
    assert row.share.mean == 1
    first = np.array([w.argmax() in of for w, of in zip(worth, exact.answers, strict=True)])
    assert row.recall == first[exact.reported].mean()


def test_tables_hold_what_was_measured(trial):
    exact, worth = trial
    rows = compare(exact, [Oracle(worth, exact.reported)], reference="none", reporter=Silence())
    content = json.loads(as_json(exact, rows))
    assert content["rows"][0]["curve"][1] == [{"layer": 2.0, "joint": None}, pytest.approx(1)]
    assert content["queries_reported"] == content["queries_picked_by"] == 10
    assert content["rows"][0]["share"] is None
    assert "| oracle | 2 | – | -1.000 [-1.000, -1.000] | – |" in markdown(exact, rows)
