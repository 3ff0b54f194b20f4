import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.dashboard.concentration import gini, lorenz

AMOUNTS = st.lists(st.floats(-1e6, 1e6), max_size=12)


@given(AMOUNTS)
def test_gini_is_the_mean_difference_of_all_pairs(amounts):
    held = [max(amount, 0.0) for amount in amounts]
    whole = sum(held)
    pairs = sum(abs(a - b) for a in held for b in held)
    expected = pairs / (2 * len(held) * whole) if whole > 0 else 0.0
    # Sums of at most 144 float64 terms.
    assert gini(amounts) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(AMOUNTS)
def test_the_lorenz_curve_climbs_from_nothing_to_all_below_the_diagonal(amounts):
    holders, held = lorenz(amounts)
    assert (holders[0], held[0]) == (0, 0)
    if len(amounts):
        assert (holders[-1], held[-1]) == (1, 1)
    assert (np.diff(held) >= 0).all()
    assert (held <= holders + 1e-12).all()


@given(AMOUNTS.filter(lambda amounts: sum(max(a, 0) for a in amounts) > 1))
def test_gini_is_twice_the_area_between_the_curve_and_the_diagonal(amounts):
    holders, held = lorenz(amounts)
    area = 0.5 - np.trapezoid(held, holders)
    # The curve has n corners: its area is that of the coefficient without n / (n - 1).
    assert gini(amounts) == pytest.approx(2 * area, abs=1e-9)
