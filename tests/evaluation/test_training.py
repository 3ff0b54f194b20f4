"""Methods along a training, on a network of seconds, against what they must agree with."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from evaluation.digits import DigitsSettings, margins
from evaluation.staged_digits import Regime, StagedDigits
from evaluation.training import INFLUENCE, over_seeds, run_training
from evaluation.training_methods import (
    Followed,
    dot_product,
    source,
    source_of_segments,
    unrolled,
)
from indexer.progress import Silence

SETTINGS = DigitsSettings(examples=40, queries=8, hidden=(6,), batch=10, learning_rate=0.05)


@pytest.fixture
def followed(tmp_path):
    def run(regime: Regime, **changes) -> Followed:
        settings = DigitsSettings(**{**vars(SETTINGS), **changes})
        task = StagedDigits(settings, regime, cache=tmp_path)
        (course,) = task.courses([7])
        return Followed(task, course)

    return run


TWO = Regime("two", (3, 3), segments=2, checkpoints=2)


def test_the_recorded_course_is_the_training_that_the_retrained_models_have(followed, tmp_path):
    f = followed(TWO)
    everything = np.ones((1, 40), dtype=bool)
    trained = f.task._train(everything, [7])
    for name, values in f.course.checkpoints[-1][1].items():
        assert torch.equal(values, trained[name][0])
    early = [step.examples for step in f.course.steps[:6]]
    assert torch.cat(early).max() < 20 <= torch.cat([s.examples for s in f.course.steps[6:]]).min()


def test_subsets_are_halves_of_every_stage(followed):
    subsets = followed(TWO).task.subsets(5, seed=0)
    assert (subsets[:, :20].sum(axis=1) == 10).all()
    assert (subsets[:, 20:].sum(axis=1) == 10).all()


def test_one_segment_of_one_checkpoint_needs_no_basis_of_its_own(followed):
    f = followed(Regime("one", (3,), segments=1, checkpoints=1))
    want = source(f)
    # Eigenvectors in float32.
    assert_close(source_of_segments(f), want, rtol=1e-3, atol=1e-4 * want.abs().max().item())


def test_a_training_without_any_length_scores_as_the_dot_product(followed):
    f = followed(Regime("one", (1,), segments=1, checkpoints=1), learning_rate=1e-7)
    want = dot_product(f).double() * float(f.lengths[0])
    assert_close(source(f), want, rtol=1e-3, atol=1e-4 * want.abs().max().item())


def test_a_long_training_scores_as_influence_damped_by_the_weight_decay(followed):
    f = followed(Regime("one", (1,), segments=1, checkpoints=1), weight_decay=0.05)
    f.rates = f.rates * 1e6
    got = source(f)
    basis = f.basis([0], torch.ones(40))
    train = f.turned(f.gradients[0], basis).double()
    query = f.turned(f.queries[0], basis).double()
    want = (query / (train.square().mean(0) + 0.05)) @ train.T
    assert_close(got, want, rtol=1e-6, atol=1e-8)


def _trained_again(f: Followed, example: int, weight: float) -> torch.Tensor:
    """Measurements of the queries after the same batches with another weight of one example."""
    s, module = f.task.settings, f.task.module()
    module.load_state_dict(f.course.initial)
    module.double()
    optimizer = torch.optim.SGD(
        module.parameters(), lr=1.0, momentum=s.momentum, weight_decay=s.weight_decay
    )
    for step in f.course.steps:
        optimizer.param_groups[0]["lr"] = step.learning_rate
        logits = module(f.task.train.images[step.examples].double())
        losses = torch.nn.functional.cross_entropy(
            logits, f.task.train.labels[step.examples], reduction="none"
        )
        weights = torch.where(step.examples == example, weight, 1.0)
        optimizer.zero_grad()
        (weights * losses).mean().backward()
        optimizer.step()
    with torch.no_grad():
        return -margins(module(f.task.queries.images.double()), f.task.queries.labels)


def test_unrolling_is_the_derivative_of_the_very_run(followed):
    f = followed(TWO, momentum=0.5)
    chosen = np.zeros(8, dtype=bool)
    chosen[[1, 4]] = True
    scores = unrolled(f, chosen)
    assert scores.shape == (2, 40)
    for example in (3, 27):  # one of each stage
        up, down = (_trained_again(f, example, 1 + e) for e in (1e-4, -1e-4))
        slope = (up - down)[torch.from_numpy(chosen)] / 2e-4
        # float32 over a dozen steps, with the few kinks that ReLU has.
        want = (-40 * slope).float()
        assert_close(scores[:, example], want, rtol=1e-2, atol=1e-3 * scores.abs().max().item())


def test_the_command_compares_every_method_in_every_regime(tmp_path):
    shown = []
    rows = run_training(
        small=True, out=tmp_path / "out", cache=tmp_path, show=shown.append, reporter=Silence()
    )
    assert set(rows) == {"converged", "under-trained", "two stages"}
    for found in rows.values():
        assert len(found) == 6
        (own,) = [row for row in found if row.method == INFLUENCE]
        assert own.beyond_influence.mean == 0
    assert all(row.first_stage is not None for row in rows["two stages"])
    assert (tmp_path / "out" / "source.md").read_text() == "\n".join(shown)


def test_an_interval_over_seeds_is_students():
    from scipy.stats import t

    values = [0.1, 0.4, 0.2, 0.35, 0.3]
    low, high = t.interval(0.95, 4, loc=np.mean(values), scale=np.std(values, ddof=1) / 5**0.5)
    assert over_seeds(values).low == pytest.approx(low, abs=1e-4)
    assert over_seeds(values).high == pytest.approx(high, abs=1e-4)
