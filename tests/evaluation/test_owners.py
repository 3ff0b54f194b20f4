"""Owners are paid in the order of what retraining without them loses."""

import numpy as np
import pytest

from evaluation.language import LanguageSettings
from evaluation.lds import spearman
from evaluation.owners import OwnedFacts, facts_markdown, pay
from influence.basis import load_basis
from influence.encoder import GradientEncoder
from influence.store import IndexReader

SMALL = LanguageSettings(
    documents=40, questions=30, width=32, mlp_width=32, layers=1, epochs=40, batch=5
)
OWNERS = 5


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return OwnedFacts(SMALL, owners=OWNERS, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def lost(task):
    return task.lost(2)


def test_owners_differ_in_what_is_asked_for_alone(task):
    assert np.bincount(task.owner_of).tolist() == [8] * OWNERS
    of = task.owner_of[task.facts.answers]
    assert np.bincount(of[task.asked], minlength=OWNERS).tolist() == list(range(OWNERS))
    for (prompt, response), answer in zip(task.facts.questions, task.facts.answers, strict=True):
        assert prompt + response == task.facts.documents[answer].text


def test_what_is_lost_is_the_mean_of_trainings_one_by_one(task, lost):
    without = task.owner_of != 3
    differences = [
        task.outputs(np.ones((1, 40), dtype=bool), [seed]) - task.outputs(without[None], [seed])
        for seed in (0, 1)
    ]
    expected = np.mean(differences, axis=0)[0, task.asked].sum()
    # Batched products add up in another order, and 280 steps of training carry that on.
    assert lost[3] == pytest.approx(expected, rel=1e-2)


def test_payouts_rank_owners_as_retraining_without_them_does(task, lost, tmp_path):
    (model,) = task.models([0])
    paid = pay(task, [model], tmp_path)
    columns = np.stack([paid.totals, paid.earned["shapley"], paid.earned["positive-share"]], axis=1)
    # .9: one exchange of neighbours among five; a rounding error below is still that.
    assert (spearman(columns, np.repeat(lost[:, None], 3, axis=1)) > 0.9 - 1e-9).all()
    assert facts_markdown(task, lost, paid).count("\n") == OWNERS + 2

    reader = IndexReader.open(tmp_path / "model-0" / "index")
    layers = [{"name": one.name, "leader": one.leader} for one in reader.manifest.layers]
    basis = load_basis(reader.basis_path, reader.manifest.settings.model_dump(), layers)
    encoder = GradientEncoder(model, basis)
    expected = dict.fromkeys(task.owners, 0.0)
    for number in np.flatnonzero(task.asked):
        vector = encoder.encode([task.queries[number]], measured=True).vectors[0].double().numpy()
        for row in range(len(reader)):
            score = reader.vectors([row])[0].astype(float) @ vector * reader.norms[row]
            expected[str(reader.row_owners[row])] += float(score) / 40
    # Here rows are the fp16 ones and there the owners' sums, made before that rounding (2^-11).
    scale = max(abs(total) for total in expected.values())
    assert paid.totals == pytest.approx(list(expected.values()), abs=1e-3 * scale)
