import numpy as np
import pytest

from influence.noise import spread_of
from service.confidence import STANDS_OUT, confidence

D = 4096
NULLS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "logistic": lambda rng, n: rng.logistic(size=n),
    "skewed": lambda rng, n: rng.gamma(4.0, size=n),
    "two heaps": lambda rng, n: rng.standard_normal(n) + 3 * (rng.random(n) < 0.3),
}


def best_confidence(scores, null_best_z=()):
    spread = spread_of(scores, dims=D)
    return float(confidence(spread.z(scores), spread, null_best_z).max())


@pytest.mark.parametrize("null", NULLS.values(), ids=NULLS)
@pytest.mark.parametrize("rows", [20, 100, 1_000, 20_000])
def test_nothing_stands_out_of_unrelated_rows(null, rows):
    rng = np.random.default_rng(0)
    runs = 200 if rows < 20_000 else 100
    found = [best_confidence(0.02 * null(rng, rows)) for _ in range(runs)]
    # It promises one in twenty; three standard deviations of so many runs are let pass.
    promised = 1 - STANDS_OUT
    assert (
        np.mean([c >= STANDS_OUT for c in found]) <= promised + 3 * (promised * 0.95 / runs) ** 0.5
    )


@pytest.mark.parametrize("rows", [100, 400, 20_000])
def test_a_related_row_stands_out(rows):
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = 0.02 * rng.standard_normal(rows)
        scores[7] = 0.02 * 9
        assert best_confidence(scores) >= STANDS_OUT


def test_a_few_related_rows_do_not_hide_each_other():
    rng = np.random.default_rng(2)
    scores = 0.02 * rng.standard_normal(1_000)
    scores[:10] = 0.2
    spread = spread_of(scores, dims=D)
    assert (confidence(spread.z(scores[:10]), spread) >= STANDS_OUT).all()


def test_confidence_grows_with_the_score_and_is_a_probability():
    spread = spread_of(np.random.default_rng(3).standard_normal(500), dims=D)
    for null in ((), tuple(np.random.default_rng(4).gumbel(3.5, 0.4, 60))):
        found = confidence(np.array([-1e9, -50, 0, 2, 4, 6, 8, 12, 100, 1e9]), spread, null)
        assert (np.diff(found) >= 0).all()
        assert found[0] == pytest.approx(0, abs=1e-6)
        assert found[-1] == 1
        assert np.isfinite(found).all()


def test_it_takes_more_to_stand_out_of_more_rows():
    rng = np.random.default_rng(5)
    sizes = (100, 1_000, 10_000)
    spreads = [spread_of(rng.standard_normal(n), dims=D) for n in sizes]
    found = [float(confidence(np.array([5.0]), spread)[0]) for spread in spreads]
    assert found == sorted(found, reverse=True)


def test_differences_below_the_noise_of_the_sketch_mean_nothing():
    # All scores within a hundredth of 1/√D: the first of them is no finding.
    scores = np.full(200, 0.01)
    scores[3] += 0.01 * D**-0.5
    assert best_confidence(scores) < 0.5


@pytest.mark.parametrize("scores", [[0.5], [0.1, 0.9], [0.1, 0.1, 0.1]])
def test_too_few_rows_to_say(scores):
    assert best_confidence(np.array(scores)) < STANDS_OUT


def test_calibration_gives_the_share_of_null_answers_below():
    rng = np.random.default_rng(8)
    location, scale = 4.2, 0.5
    null = tuple(rng.gumbel(location, scale, 4_000))
    spread = spread_of(rng.standard_normal(500), dims=D)
    z = np.array([3.0, 4.2, 5.0, 6.0, 7.0])
    expected = np.exp(-np.exp(-(z - location) / scale))
    np.testing.assert_allclose(confidence(z, spread, null), expected, atol=0.02)


def test_a_calibration_of_few_answers_is_not_used():
    spread = spread_of(np.random.default_rng(9).standard_normal(500), dims=D)
    z = np.array([2.0, 5.0])
    assert np.array_equal(confidence(z, spread, (9.0,) * 19), confidence(z, spread))
    assert not np.array_equal(confidence(z, spread, (9.0,) * 20), confidence(z, spread))


@pytest.mark.parametrize("tail", ["gumbel", "student t", "one in ten related"])
@pytest.mark.parametrize("n", [20, 32, 64])
def test_whatever_the_null_answers_look_like_one_in_twenty_stands_out(tail, n):
    """Of answers like those of the calibration; long tails are where a fit alone is wrong."""
    rng = np.random.default_rng(12)
    draw = {
        "gumbel": lambda size: rng.gumbel(4, 0.5, size),
        "student t": lambda size: 4 + rng.standard_t(1.5, size),
        "one in ten related": lambda size: rng.gumbel(4, 0.5, size) + 30 * (rng.random(size) < 0.1),
    }[tail]
    spread = spread_of(rng.standard_normal(500), dims=D)
    wrong = [
        (confidence(draw(50), spread, tuple(draw(n))) >= STANDS_OUT).mean() for _ in range(400)
    ]
    # The standard error of 400 calibrations with a spread of 1/√n at most.
    assert np.mean(wrong) <= 0.05 + 3 * np.std(wrong) / 400**0.5


def test_above_all_null_answers_confidence_still_grows():
    null = tuple(np.random.default_rng(13).gumbel(4, 0.5, 64))
    spread = spread_of(np.random.default_rng(14).standard_normal(500), dims=D)
    z = np.linspace(min(null) - 1, max(null) + 5, 500)
    found = confidence(z, spread, null)
    assert (np.diff(found) >= 0).all()
    assert found[-1] > 0.999
