"""Methods along a training, on a network of seconds, against what they must agree with."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from evaluation.digits import DigitsSettings, margins
from evaluation.language import LanguageSettings, Padded
from evaluation.stacked_llama import sequence_losses
from evaluation.staged import Regime, halves_of_stages
from evaluation.staged_digits import StagedDigits
from evaluation.staged_language import StagedLanguage
from evaluation.training import ADAMS, INFLUENCE, over_seeds, run_training
from evaluation.training_methods import (
    Followed,
    dot_product,
    source,
    source_of_segments,
    source_of_whole_curvature,
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
    for name, values in f.course.checkpoints[-1].parameters.items():
        assert torch.equal(values, trained[name][0])
    early = [step.examples for step in f.course.steps[:6]]
    assert torch.cat(early).max() < 20 <= torch.cat([s.examples for s in f.course.steps[6:]]).min()


def test_subsets_are_halves_of_every_stage(followed):
    subsets = halves_of_stages(followed(TWO).task.stage_of, 5, seed=0)
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
    train = f.turned(f.gradients[0], f.last).double()
    query = f.turned(f.queries[0], f.last).double()
    want = (query / (train.square().mean(0) + 0.05)) @ train.T
    assert_close(got, want, rtol=1e-6, atol=1e-8)


def test_whole_curvature_is_that_of_dense_algebra(followed):
    """Two segments by matrix exponentials and an integral of them."""
    f = followed(TWO, weight_decay=0.05)
    got = source_of_whole_curvature(f)
    query, want = f.queries[-1].double(), 0.0
    for n in (1, 0):
        rows = f.gradients[n].double()
        weight = f.exposures[n] / f.exposures[n].sum()
        hessian = rows.T @ (rows * weight[:, None]) + 0.05 * torch.eye(rows.shape[1])
        decay = torch.matrix_exp(-f.lengths[n] * hessian)
        grown = torch.linalg.solve(hessian, torch.eye(len(hessian)).double() - decay)
        want = want + query @ grown @ f.mean_gradients(n).double().T
        query = query @ decay
    # Gradients are float32, and directions below 1e-10 of the largest eigenvalue are left out.
    assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())


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
    scores = f.task.unrolled(f.course, chosen)
    assert scores.shape == (2, 40)
    for example in (3, 27):  # one of each stage
        up, down = (_trained_again(f, example, 1 + e) for e in (1e-4, -1e-4))
        slope = (up - down)[torch.from_numpy(chosen)] / 2e-4
        # float32 over a dozen steps, with the few kinks that ReLU has.
        want = (-40 * slope).float()
        assert_close(scores[:, example], want, rtol=1e-2, atol=1e-3 * scores.abs().max().item())


@pytest.mark.parametrize(
    ("name", "regimes", "methods"),
    [
        ("digits", {"converged", "under-trained", "two stages"}, 6),
        ("language", {"under-trained", "two stages"}, 8),
    ],
)
def test_the_command_compares_every_method_in_every_regime(name, regimes, methods, tmp_path):
    shown = []
    rows = run_training(
        name, small=True, out=tmp_path / "out", cache=tmp_path, show=shown.append,
        reporter=Silence(),
    )  # fmt: skip
    assert set(rows) == regimes
    for found in rows.values():
        assert len(found) == methods
        assert (ADAMS in {row.method for row in found}) == (name == "language")
        (own,) = [row for row in found if row.method == INFLUENCE]
        assert own.beyond_influence.mean == 0
    assert all(row.first_stage is not None for row in rows["two stages"])
    assert (tmp_path / "out" / f"source-{name}.md").read_text() == "\n".join(shown)


LANGUAGE = LanguageSettings(
    documents=24, questions=6, width=16, mlp_width=16, layers=1, batch=4, warmup_steps=2
)


@pytest.fixture
def language(tmp_path):
    return StagedLanguage(
        LANGUAGE, Regime("two", (1, 1), segments=2, checkpoints=2), cache=tmp_path
    )


def test_a_stage_of_the_language_task_has_all_that_is_said_of_its_people(language):
    task = language._task
    for number, stating in enumerate(task.facts.stating):
        assert {int(task.stage_of[i]) for i in stating} == {number % 2}
    (course,) = language.courses([3])
    seen = [set(task.stage_of[step.examples].tolist()) for step in course.steps]
    assert seen == [{0}] * (len(seen) // 2) + [{1}] * (len(seen) // 2)


def test_unrolling_a_language_model_is_the_derivative_of_the_very_run(language):
    """The run's batches again by torch's AdamW, with another weight of one document."""
    (course,) = language.courses([3])
    chosen = np.array([True, False, False, True, False, False])
    scores = language.unrolled(course, chosen)
    task = language._task

    def trained_again(document: int, weight: float) -> torch.Tensor:
        parameters = {n: p[None].double().requires_grad_() for n, p in course.initial.items()}
        optimizer = torch.optim.AdamW(parameters.values(), betas=(0.9, 0.98), weight_decay=0.1)
        documents = Padded.of([p.tokens for p in task.passages])
        for step in course.steps:
            optimizer.param_groups[0]["lr"] = step.learning_rate
            losses = sequence_losses(
                task.shape, parameters, documents.input_ids[step.examples][None],
                documents.targets[step.examples][None],
            )[0]  # fmt: skip
            optimizer.zero_grad()
            (torch.where(step.examples == document, weight, 1.0) * losses).mean().backward()
            optimizer.step()
        asked = Padded.of(task.queries)
        with torch.no_grad():
            return sequence_losses(
                task.shape, parameters, asked.input_ids[None], asked.targets[None]
            )[0][torch.from_numpy(chosen)]

    for document in (course.steps[0].examples[0], course.steps[-1].examples[0]):
        up, down = (trained_again(int(document), 1 + e) for e in (1e-5, -1e-5))
        want = -len(task.passages) * (up - down) / 2e-5
        # Central differences: of the order of the squared step, over moments that are near 0.
        assert_close(scores[:, document], want, rtol=1e-3, atol=1e-4 * scores.abs().max().item())


def test_adams_own_coordinates_are_those_of_plain_descent(language, monkeypatch):
    """Where the preconditioner is one number, they are those of SGD at that learning rate."""
    (course,) = language.courses([3])
    f = Followed(language, course)
    f.preconditioners = [torch.full_like(p, 4.0) for p in f.preconditioners]
    got = source(f, f.adams)
    plain = Followed(language, course)
    plain.preconditioners = None
    plain.rates = f.rates * 4
    plain.gradients, plain.curvature_rows = f.gradients, f.curvature_rows
    decay = language.weight_decay / 4  # of AdamW, in units of the gradient
    unscaled = type(f.adams)(f.adams.basis)
    monkeypatch.setattr(StagedLanguage, "weight_decay", decay)
    assert_close(got, source(plain, unscaled), rtol=1e-4, atol=1e-5 * got.abs().max().item())


def test_an_interval_over_seeds_is_students():
    from scipy.stats import t

    values = [0.1, 0.4, 0.2, 0.35, 0.3]
    low, high = t.interval(0.95, 4, loc=np.mean(values), scale=np.std(values, ddof=1) / 5**0.5)
    assert over_seeds(values).low == pytest.approx(low, abs=1e-4)
    assert over_seeds(values).high == pytest.approx(high, abs=1e-4)
