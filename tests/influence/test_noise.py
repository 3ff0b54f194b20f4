import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence.noise import best_z, spread_of

D = 4096


def test_median_and_deviation_are_the_textbook_ones():
    rng = np.random.default_rng(6)
    scores = rng.standard_normal(100_001) * 0.3 + 0.1
    spread = spread_of(scores, dims=D)
    assert spread.centre == np.median(scores)
    assert spread.scale == pytest.approx(0.3, rel=0.02)
    assert spread.tail_start == pytest.approx(1.2816, abs=0.02)  # normal quantiles
    assert spread.tail_scale == pytest.approx(0.48, rel=0.03)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=300))
def test_middle_and_quantiles_are_numpys_to_the_bit(scores):
    scores = np.array(scores)
    spread = spread_of(scores, dims=D)
    centre = np.median(scores)
    scale = max(1.4826 * np.median(np.abs(scores - centre)), D**-0.5)
    z90, z98 = (np.quantile(scores, [0.9, 0.98], method="lower") - centre) / scale
    assert (spread.centre, spread.scale) == (centre, scale)
    assert spread.tail_start == max(z90, 1.2816)
    assert spread.tail_scale == max((z98 - z90) / np.log(5), 0.48) * (1 + 10 / len(scores))


def test_a_large_index_is_sampled():
    scores = np.random.default_rng(7).standard_normal(1_000_003).astype(np.float32)
    spread = spread_of(scores, dims=D)
    assert spread.rows == len(scores)
    assert spread.scale == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("drawn", [1024, 4096])
def test_a_uniform_sample_of_the_rows_tells_the_spread_as_well_as_derived(drawn):
    rng = np.random.default_rng(8)
    scores = rng.standard_normal(20_000)
    whole = spread_of(scores, dims=D)
    spreads = [
        spread_of(rng.choice(scores, drawn, replace=False), dims=D, rows=len(scores))
        for _ in range(100)
    ]
    assert all(spread.rows == len(scores) for spread in spreads)
    # Standard errors of the module's docstring; a standard deviation of 100 draws is known to 7 %,
    # so three of these, and what the sample leaves of the whole makes the errors smaller only.
    allowed = 1.21 / np.sqrt(drawn)
    centres = np.array([spread.centre for spread in spreads])
    scales = np.array([spread.scale for spread in spreads])
    betas = np.array([spread.tail_scale for spread in spreads])
    assert np.sqrt(np.mean((centres - whole.centre) ** 2)) < 1.25 * allowed
    assert np.sqrt(np.mean((scales - whole.scale) ** 2)) < 1.17 * allowed
    assert np.sqrt(np.mean((betas / whole.tail_scale - 1) ** 2)) < 3.43 * allowed
    z = np.array([float(spread.z(np.array(5.0))) for spread in spreads])
    assert np.sqrt(np.mean((z - whole.z(np.array(5.0))) ** 2)) < np.hypot(1.25, 5 * 1.17) * allowed


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
