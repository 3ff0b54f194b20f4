"""The sliding window against the plain definition: how many in the last minute?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence.errors import RateLimited
from service.rates import WINDOW_S, SlidingWindow


@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab")), max_size=60),
    limit=st.integers(1, 4),
)
def test_it_admits_what_a_list_of_all_requests_would(steps, limit):
    now = 0
    window = SlidingWindow(lambda: float(now))
    admitted: list[tuple[int, str]] = []
    for step, name in steps:
        now += step
        recent = [t for t, who in admitted if who == name and t > now - WINDOW_S]
        if len(recent) < limit:
            window.count(name, limit)
            admitted.append((now, name))
            continue
        with pytest.raises(RateLimited) as refused:
            window.count(name, limit)
        assert refused.value.retry_after_s == max(1, recent[-limit] + WINDOW_S - now)


def test_who_waits_as_long_as_it_was_told_is_let_in():
    now = 0.0
    window = SlidingWindow(lambda: now)
    for _ in range(3):
        window.count("a", 3)
        now += 0.7
    with pytest.raises(RateLimited, match="3 times a minute") as refused:
        window.count("a", 3)
    assert refused.value.retry_after_s is not None
    now += refused.value.retry_after_s
    window.count("a", 3)


def test_without_a_limit_nothing_is_counted():
    window = SlidingWindow(lambda: 0.0)
    for _ in range(1000):
        window.count("a", None)
