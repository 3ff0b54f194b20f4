"""The score is tried on rankings whose value is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from evaluation.lds import Interval, bootstrap, bootstrap_ratio, half_subsets, lds, spearman

Q, N, S = 40, 60, 100


@pytest.fixture
def linear():
    """A world in which every example adds its own amount, whatever else is there."""
    draw = np.random.default_rng(0)
    effects = draw.standard_normal((Q, N))
    subsets = half_subsets(N, count=S, seed=1)
    # Any rising function of the sum: only the order counts.
    return effects, subsets, np.tanh(subsets @ effects.T / 10)


def test_a_perfect_score_gets_1(linear):
    effects, subsets, outputs = linear
    assert_allclose(lds(effects, subsets, outputs), 1)
    assert_allclose(lds(1e-6 * effects.astype(np.float32), subsets, outputs), 1, atol=1e-4)


def test_a_flipped_sign_gets_minus_1(linear):
    effects, subsets, outputs = linear
    assert_allclose(lds(-effects, subsets, outputs), -1)


def test_a_random_score_gets_0_within_its_interval_as_often_as_the_interval_promises(linear):
    _, subsets, outputs = linear
    covered = 0
    for seed in range(100):
        scores = np.random.default_rng(1000 + seed).standard_normal((Q, N))
        interval = bootstrap(lds(scores, subsets, outputs), resamples=300, seed=seed)
        covered += interval.low <= 0 <= interval.high
    # Queries share subsets but their effects are independent, so 95 are expected; fewer than 86
    # of 100 would be further than four standard deviations (2.2 each) below.
    assert covered >= 86


def test_knowing_half_of_the_effects_gets_less_than_all(linear):
    effects, subsets, outputs = linear
    half = effects.copy()
    half[:, ::2] = 0
    # Corr of a half sum with the sum of equal, independent halves is 1/√2.
    assert_allclose(lds(half, subsets, outputs).mean(), 0.5**0.5, atol=0.05)


def test_spearman_is_that_of_scipy_with_ties():
    draw = np.random.default_rng(3)
    a = draw.integers(0, 5, size=(30, 7)).astype(float)
    b = draw.standard_normal((30, 7))
    expected = [spearmanr(a[:, i], b[:, i]).statistic for i in range(7)]
    assert_allclose(spearman(a, b), expected)


def test_a_column_without_differences_counts_0():
    b = np.arange(10.0)[:, None]
    assert spearman(np.zeros((10, 1)), b) == 0


def test_subsets_have_one_size_and_depend_on_the_seed_alone():
    subsets = half_subsets(51, count=20, fraction=1 / 3, seed=4)
    assert (subsets.sum(axis=1) == 17).all()
    assert (subsets == half_subsets(51, count=20, fraction=1 / 3, seed=4)).all()
    assert (subsets != half_subsets(51, count=20, fraction=1 / 3, seed=5)).any()


def test_the_interval_covers_the_mean_of_the_population():
    draw = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        interval = bootstrap(draw.normal(0.3, 1, size=80), resamples=300, seed=seed)
        covered += interval.low <= 0.3 <= interval.high
    assert covered >= 178  # 190 expected, 3.1 standard deviation


def test_a_ratio_on_the_same_queries_is_surer_than_its_parts():
    draw = np.random.default_rng(6)
    reference = draw.uniform(0.2, 1, size=80)
    values = 0.9 * reference + draw.normal(0, 0.01, size=80)
    ratio = bootstrap_ratio(values, reference)
    assert abs(ratio.mean - 0.9) < 0.01
    assert ratio.half_width < 0.3 * bootstrap(values).half_width
    assert bootstrap_ratio(reference, reference) == Interval(1, 1, 1)


@pytest.mark.parametrize(
    ("scores", "subsets", "outputs"),
    [((4, 5), (6, 7), (6, 4)), ((4, 5), (6, 5), (5, 4)), ((4, 5), (1, 5), (1, 4))],
)
def test_shapes_that_do_not_belong_together_are_told(scores, subsets, outputs):
    with pytest.raises(ValueError, match=r"must be \["):
        lds(np.ones(scores), np.ones(subsets, dtype=bool), np.ones(outputs))


def test_an_output_that_diverged_is_told():
    with pytest.raises(ValueError, match="not finite"):
        spearman(np.ones((3, 1)), np.array([[1.0], [np.nan], [2.0]]))


def test_a_subset_must_leave_something_out():
    with pytest.raises(ValueError, match="nothing would be left out"):
        half_subsets(10, count=2, fraction=1.0, seed=0)
