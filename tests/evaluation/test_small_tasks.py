"""Regression, tumours, convolutions: trained in stacks as one by one, ranked by influence."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from evaluation.catalogue import whence
from evaluation.comparison import compare
from evaluation.lds import half_subsets
from evaluation.methods import Drawn, FullGradient
from evaluation.tabular import DiabetesTask
from evaluation.trial import SMALL_DIGITS, run_trial
from indexer.progress import Silence


def test_a_stacked_regression_is_one_trained_by_itself(tmp_path):
    task = DiabetesTask(SMALL_DIGITS, cache=tmp_path)
    s = task.settings
    subset = half_subsets(s.examples, count=1, seed=0)
    (outputs,) = task.outputs(subset, [[3]])
    model = task.module()
    start = task._initial([3])
    model.load_state_dict({name: values[0] for name, values in start.items()})
    optimizer = torch.optim.SGD(
        model.parameters(), lr=s.learning_rate, momentum=s.momentum, weight_decay=s.weight_decay
    )
    members = torch.from_numpy(subset[0].nonzero()[0])
    steps_an_epoch = len(members) // s.batch
    generator = torch.Generator().manual_seed(3)
    for step in range(s.epochs * steps_an_epoch):
        for group in optimizer.param_groups:
            group["lr"] = s.learning_rate * (1 - step / (s.epochs * steps_an_epoch))
        place = step % steps_an_epoch
        if place == 0:
            order = members[torch.randperm(len(members), generator=generator)]
        some = order[s.batch * place : s.batch * (place + 1)]
        error = model(task.train.images[some])[:, 0] - task.train.labels[some]
        optimizer.zero_grad()
        (error.square().sum() / 2 / s.batch).backward()
        optimizer.step()
    with torch.no_grad():
        error = model(task.queries.images)[:, 0] - task.queries.labels
    # Sums of float32 in another order, over some thirty steps.
    assert_close(torch.from_numpy(outputs), -error.square() / 2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["cnn", "tumours", "diabetes"])
def test_every_task_runs_from_training_to_a_table(name, tmp_path):
    trial = run_trial(name, small=True, cache=tmp_path, reporter=Silence())
    methods = [Drawn(), FullGradient("gradient dot product"), whence(8, 256)]
    rows = compare(trial, methods, reference="gradient dot product", reporter=Silence())
    lds = {row.method: row.lds.mean for row in rows}
    # Twelve halves tell little; that training examples help themselves shows even so.
    assert lds["gradient dot product"] > lds["random"]
    assert np.isfinite(list(lds.values())).all()
    assert trial.protocol.startswith(f"{name}: ")
