import numpy as np
import pytest

from service.confidence import STANDS_OUT, best_z, confidence, spread_of

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


def test_median_and_deviation_are_the_textbook_ones():
    rng = np.random.default_rng(6)
    scores = rng.standard_normal(100_001) * 0.3 + 0.1
    spread = spread_of(scores, dims=D)
    assert spread.centre == np.median(scores)
    assert spread.scale == pytest.approx(0.3, rel=0.02)
    assert spread.tail_start == pytest.approx(1.2816, abs=0.02)  # normal quantiles
    assert spread.tail_scale == pytest.approx(0.48, rel=0.03)


def test_a_large_index_is_sampled():
    scores = np.random.default_rng(7).standard_normal(1_000_003).astype(np.float32)
    spread = spread_of(scores, dims=D)
    assert spread.rows == len(scores)
    assert spread.scale == pytest.approx(1, rel=0.02)


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


def test_best_z_is_what_a_calibration_collects():
    scores = np.random.default_rng(10).standard_normal(400)
    spread = spread_of(scores, dims=D)
    assert best_z(scores, dims=D) == spread.z(scores).max()


def test_opponents_are_judged_by_the_lower_tail():
    rng = np.random.default_rng(11)
    scores = 0.02 * rng.gamma(4.0, size=1_000)  # a long upper tail, a short lower one
    up, down = spread_of(scores, dims=D), spread_of(-scores, dims=D)
    assert down.centre == -up.centre
    assert down.tail_scale < up.tail_scale


def test_no_scores_are_a_mistake():
    with pytest.raises(ValueError, match="no scores"):
        spread_of(np.array([]), dims=D)
