"""The gamer's tricks are what they say, and shares are those of a plain loop."""

from collections import Counter

import numpy as np
import pytest

from evaluation.gaming import GAMER, GamingStudy
from evaluation.language import LanguageSettings, LanguageTask
from influence.basis import basis_of
from influence.encoder import GradientEncoder
from influence.store import IndexReader

SMALL = LanguageSettings(
    documents=24, questions=8, width=16, mlp_width=16, layers=1, epochs=3, batch=4
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return LanguageTask(SMALL, cache=tmp_path_factory.mktemp("cache"))


def _texts(play, owner_is_gamer):
    return [d.text for d in play.corpus if (d.owner == GAMER) == owner_is_gamer]


def test_each_trick_changes_the_gamers_part_alone(task):
    honest, copies, reworded, noise, halves, asking = GamingStudy(task, owners=4).plays()
    for play in (copies, reworded, noise, halves, asking):
        assert _texts(play, False) == _texts(honest, False)
        assert len({d.id for d in play.corpus}) == len(play.corpus)
    added = Counter(_texts(copies, True)) - Counter(_texts(honest, True))
    assert added
    assert set(added) <= set(_texts(honest, False))
    others = Counter(_texts(reworded, True)) - Counter(_texts(honest, True))
    facts = {(text.split()[-1]) for text in added}
    assert {text.split()[-1] for text in others} == facts
    assert not set(others) & set(_texts(honest, False))
    assert " ".join(_texts(halves, True)).split() == " ".join(_texts(honest, True)).split()
    assert asking.by.count(GAMER) == len(asking.queries) - len(honest.queries) == 24


def test_a_share_is_that_of_a_plain_loop(task, tmp_path):
    (model,) = task.models([0])
    study = GamingStudy(task, owners=4)
    play = study.plays()[-1]
    shares = study.outcome(play, model, tmp_path).shares["positive-share"]
    reader = IndexReader.open(tmp_path / "index")
    encoder = GradientEncoder(model, basis_of(reader))
    parts = []
    for query in play.queries:
        vector = encoder.encode([query], measured=True).vectors[0].double().numpy()
        totals: dict[str, float] = {}
        for row in range(len(reader)):
            unit = reader.vectors([row])[0].astype(float)
            owner = str(reader.row_owners[row])
            totals[owner] = totals.get(owner, 0.0) + float(unit @ vector) * float(reader.norms[row])
        positive = {owner: max(total, 0.0) for owner, total in totals.items()}
        parts.append(positive.get(GAMER, 0.0) / (sum(positive.values()) or 1.0))
    # Gradients are float32, here one at a time and there in batches.
    assert shares["none"] == pytest.approx(float(np.mean(parts)), abs=1e-3)
    by_key: dict[str, list[float]] = {}
    for key, part in zip(play.by, parts, strict=True):
        by_key.setdefault(key, []).append(part)
    alike = float(np.mean([np.mean(each) for each in by_key.values()]))
    assert shares["keys alike"] == pytest.approx(alike, abs=1e-3)
