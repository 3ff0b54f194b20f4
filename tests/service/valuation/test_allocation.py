"""Pools add up to the cent, whatever the worths."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence.errors import InvalidInput
from service.valuation.allocation import divide, parse_money, show_money

WORTHS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12).filter(lambda w: max(w) > 0)


@given(pool=st.integers(1, 10**12), worth=WORTHS)
def test_every_cent_is_given_and_nobody_is_off_by_one(pool, worth):
    free = [None] * len(worth)
    got, nobody = divide(pool, worth, floors=[0] * len(worth), caps=free)
    assert nobody == 0
    assert sum(got) == pool
    whole = sum(Fraction(max(w, 0)) for w in worth)
    assert all(
        abs(g - pool * Fraction(max(w, 0)) / whole) < 1 for g, w in zip(got, worth, strict=True)
    )


@given(
    pool=st.integers(1000, 10**9),
    people=st.lists(
        st.tuples(st.floats(0, 1e3), st.integers(0, 50), st.none() | st.integers(0, 10**8)),
        min_size=1,
        max_size=12,
    ).filter(lambda people: max(w for w, _, _ in people) > 0),
)
def test_floors_and_caps_hold_and_what_nobody_may_have_is_told(pool, people):
    worth, floors, caps = zip(*people, strict=True)
    got, nobody = divide(pool, worth, floors=floors, caps=caps)
    assert sum(got) + nobody == pool
    for amount, low, cap in zip(got, floors, caps, strict=True):
        assert amount >= low
        assert cap is None or amount <= max(cap, low)
    if nobody:  # then everybody with worth is full
        assert all(
            a == max(c or 0, f)
            for a, w, f, c in zip(got, worth, floors, caps, strict=True)
            if w > 0
        )


def test_what_does_not_fit_under_a_cap_goes_to_the_others():
    assert divide(100, [3.0, 1.0, 1.0], floors=[0, 0, 0], caps=[20, None, None]) == (
        [20, 40, 40],
        0,
    )


def test_the_largest_remainders_get_the_cents_that_rounding_left():
    assert divide(100, [1.0, 1.0, 1.0], floors=[0] * 3, caps=[None] * 3) == ([34, 33, 33], 0)
    assert divide(10, [1.0, 2.0], floors=[0] * 2, caps=[None] * 2) == ([3, 7], 0)


@pytest.mark.parametrize("worth", [[0.0, 0.0], [-1.0, -2.0]])
def test_worth_that_is_not_positive_divides_nothing(worth):
    with pytest.raises(InvalidInput, match="Nobody has positive worth"):
        divide(100, worth, floors=[0, 0], caps=[None, None])


def test_floors_beyond_the_pool_are_refused():
    with pytest.raises(InvalidInput, match=r"2\.00 together, and the pool is 1\.00"):
        divide(100, [1.0, 1.0], floors=[100, 100], caps=[None, None])


@pytest.mark.parametrize("text", ["", "ten", "1.005", "NaN", "Infinity", "-1", "0", "1e30"])
def test_what_is_no_pool_is_refused(text):
    with pytest.raises(InvalidInput, match="The pool is"):
        parse_money(text, what="The pool", least=1)


def test_money_is_shown_as_it_is_read():
    assert show_money(parse_money("1000.5", what="It")) == "1000.50"
