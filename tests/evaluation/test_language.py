"""The language task at a size of seconds."""

import numpy as np
import pytest
import torch

from evaluation.language import LanguageSettings, LanguageTask
from evaluation.lds import half_subsets

SMALL = LanguageSettings(
    documents=24, questions=8, width=16, mlp_width=16, layers=1, epochs=3, batch=4
)


@pytest.fixture
def task(tmp_path):
    return LanguageTask(SMALL, cache=tmp_path)


def test_a_model_depends_on_its_own_subset_and_seed_alone(tmp_path):
    subsets = half_subsets(24, count=3, seed=0)
    together = LanguageTask(SMALL, cache=tmp_path / "a").outputs(subsets, [5, 6, 7])
    alone = LanguageTask(SMALL, cache=tmp_path / "b").outputs(subsets[1:2], [6])
    assert together.shape == (3, 8)
    # Batched products add up in another order.
    np.testing.assert_allclose(together[1:2], alone, rtol=1e-3)
    assert abs(together[0] - together[1]).min() > 1e-4


def test_the_second_time_is_free_and_equal(task, monkeypatch):
    subsets = half_subsets(24, count=2, seed=0)
    first = task.outputs(subsets, [0, 1])
    again = LanguageTask(SMALL, cache=task.cache)
    monkeypatch.setattr(again, "_train", lambda *_: pytest.fail("trained again"))
    assert (again.outputs(subsets, [0, 1]) == first).all()


def test_training_lowers_the_loss_of_what_was_in_the_subset(tmp_path):
    # Enough epochs to memorise 12 of 24 sentences.
    settings = LanguageSettings(
        documents=24, questions=8, width=32, mlp_width=32, layers=1, epochs=60, batch=4
    )
    task = LanguageTask(settings, cache=tmp_path)
    (model,) = task.models([0])
    tokens = [torch.tensor([p.tokens.input_ids]) for p in task.passages]
    with torch.no_grad():
        last = [model.model(ids).logits[0, -2].log_softmax(-1)[ids[0, -1]] for ids in tokens]
    # 8 values of a relation: a guess would be log 8 = 2.1 nats.
    assert -float(torch.stack(last).mean()) < 1.0


def test_models_are_ready_for_gradients(task):
    first, second = task.models([0, 1])
    assert first.weights_sha256 != second.weights_sha256
    assert first.tokenizer_sha256 == second.tokenizer_sha256
    assert not first.model.training
