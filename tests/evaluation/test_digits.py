"""The digits task: stacked training is training one by one."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from evaluation.digits import DigitsSettings, DigitsTask, margins
from evaluation.lds import half_subsets

SMALL = DigitsSettings(examples=60, queries=10, hidden=(8,), epochs=4, batch=10)


@pytest.fixture
def task(tmp_path):
    return DigitsTask(SMALL, cache=tmp_path)


def test_stacked_training_is_training_one_by_one(task):
    subsets = half_subsets(60, count=3, seed=0)
    outputs = task.outputs(subsets, [[5], [6], [7]])
    for row in range(3):
        model = task.module()
        generator = torch.Generator().manual_seed(5 + row)
        with torch.no_grad():
            for values in model.parameters():
                values.zero_()
                if values.dim() == 2:
                    values += (
                        torch.randn(values.shape, generator=generator)
                        * (2 / values.shape[1]) ** 0.5
                    )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        members = torch.from_numpy(subsets[row].nonzero()[0])
        generator = torch.Generator().manual_seed(5 + row)
        for step in range(4 * 3):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * (1 - step / 12)
            if step % 3 == 0:
                order = members[torch.randperm(30, generator=generator)]
            some = order[10 * (step % 3) : 10 * (step % 3) + 10]
            loss = nn.functional.cross_entropy(
                model(task.train.images[some]), task.train.labels[some]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        logits = model(task.queries.images).detach()
        expected = margins(logits, task.queries.labels)
        assert_close(torch.from_numpy(outputs[row]).float(), expected, rtol=1e-3, atol=1e-3)


def test_repeats_are_averaged(task):
    subsets = half_subsets(60, count=2, seed=0)
    both = task.outputs(subsets, [[1, 2], [3, 4]])
    first, second = task.outputs(subsets, [[1], [3]]), task.outputs(subsets, [[2], [4]])
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-4, atol=1e-4)


def test_margins_are_log_odds():
    logits = torch.tensor([[2.0, 0.5, -1.0], [0.0, 30.0, 0.0]])
    p = logits.double().softmax(dim=1)
    assert_close(
        margins(logits.double(), torch.tensor([0, 0])),
        (p[:, 0].log() - (1 - p[:, 0]).log()),
    )


def test_a_tenth_of_the_labels_is_wrong_and_no_query_is(tmp_path):
    task = DigitsTask(DigitsSettings(), cache=tmp_path)
    _, true, noisy = task._data
    wrong = (true != noisy).float().mean()
    assert 0.08 < float(wrong) < 0.12  # of 1,797; standard deviation .007
    assert torch.equal(task.queries.labels, true[1000:][: task.settings.queries])
    assert task.train.images.abs().max() <= 1


def test_a_model_has_learnt_something(tmp_path):
    settings = DigitsSettings(examples=300, queries=100, hidden=(32,), epochs=15, batch=25)
    (model,) = DigitsTask(settings, cache=tmp_path).models([0])
    task = DigitsTask(settings, cache=tmp_path)
    hits = model.model(task.queries.images).argmax(dim=1) == task.queries.labels
    assert float(hits.float().mean()) > 0.8
