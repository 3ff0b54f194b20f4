"""Keeping what is valuable, on a linear model that can be solved, and the studies when small."""

import numpy as np
import pytest

from evaluation.curation import detection_auc, keep_shares, most_valuable
from evaluation.poison import MARK, PoisonedDigits
from evaluation.run import run_brittleness, run_curation
from evaluation.trial import SMALL_DIGITS
from indexer.progress import Silence


def test_an_oracle_that_knows_the_wrong_labels_trains_on_the_others_alone():
    draw = np.random.default_rng(0)
    x, queries = draw.normal(size=(50, 4)), draw.normal(size=(8, 4))
    truth = draw.normal(size=4)
    bad = draw.random(50) < 0.3
    y = np.where(bad, -5.0, 1.0) * (x @ truth)

    def error(kept):
        theta = np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
        return 1.0 - np.abs(queries @ (theta - truth))

    def retrain(subsets):
        return np.stack([error(kept) for kept in subsets])

    values = {"oracle": -bad.astype(float), "random": draw.normal(size=50)}
    values["flipped"] = -values["oracle"]
    reported = np.arange(8) % 2 == 1
    share = (~bad).mean()
    kept = {k.valuation: k for k in keep_shares(values, (share,), retrain, reported)}
    # Right labels have no noise, so that least squares on them finds the truth: an error of 0.
    assert kept["oracle"].measured.mean == pytest.approx(1.0)
    assert kept["oracle"].right == 1
    assert kept["random"].measured.mean == pytest.approx(
        error(most_valuable(values["random"], share))[reported].mean()
    )
    assert kept["oracle"].measured.mean > kept["random"].measured.mean
    assert kept["random"].measured.mean > kept["flipped"].measured.mean


def test_an_auc_is_the_share_of_pairs_in_the_right_order():
    draw = np.random.default_rng(1)
    values, bad = draw.integers(0, 6, size=40).astype(float), draw.random(40) < 0.4
    pairs = [1.0 if b < g else 0.5 if b == g else 0.0 for b in values[bad] for g in values[~bad]]
    assert detection_auc(values, bad) == pytest.approx(np.mean(pairs))
    assert detection_auc(-1.0 * bad, bad) == 1
    assert detection_auc(1.0 * bad, bad) == 0
    with pytest.raises(ValueError, match="0 of 40 examples are bad"):
        detection_auc(values, np.zeros(40, dtype=bool))


def test_the_most_valuable_are_kept():
    assert most_valuable(np.array([1.0, 3.0, 2.0]), 0.67).tolist() == [False, True, True]
    with pytest.raises(ValueError, match=r"0\.1 of 3 examples is 0"):
        most_valuable(np.ones(3), 0.1)


def test_poisoned_digits_have_the_mark_and_the_label_of_the_attack(tmp_path):
    task = PoisonedDigits(SMALL_DIGITS, cache=tmp_path)
    images, labels = task.train.images.numpy(), task.train.labels.numpy()
    assert task.poisoned.sum() == round(0.03 * SMALL_DIGITS.examples)
    assert (images[task.poisoned][:, MARK] == 1).all()
    assert (labels[task.poisoned] == 0).all()
    assert (task.true_labels.numpy()[task.poisoned] != 0).all()
    assert not (images[~task.poisoned][:, MARK] == 1).all(axis=1).any()
    assert (task.queries.images[:, MARK] == 1).all()
    assert (task.queries.labels == 0).all()


def test_both_studies_end_in_a_table_of_every_method(tmp_path):
    shown = []
    for run in (run_brittleness, run_curation):
        run(small=True, out=tmp_path / "out", cache=tmp_path, show=shown.append, reporter=Silence())
    brittle, curated = shown
    assert "| ranking | drop, k = 5 | flips, k = 5 | drop, k = 20 | flips, k = 20 |" in brittle
    assert "| valuation | 60% kept: margin, right | AUC, wrong labels | AUC, poisoned |" in curated
    for name in ("Whence: rank 32, D 4,096", "TRAK", "representation cosine", "random"):
        assert f"| {name} | " in brittle
        assert f"| {name} | " in curated
    assert (tmp_path / "out" / "curation-digits.md").read_text() == curated
    for study in ("brittleness", "curation"):
        drawn = (tmp_path / "out" / f"{study}-digits.svg").read_text()
        assert drawn.startswith("<svg ")
        assert "representation cosine" in drawn
