import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.search.top import top_rows

FEW_VALUES = st.integers(-3, 3).map(float)  # so that ties are common


@given(st.data())
def test_it_is_what_a_stable_sort_gives(data):
    n = data.draw(st.integers(0, 30))
    scores = data.draw(arrays(np.float32, n, elements=FEW_VALUES))
    eligible = data.draw(st.none() | arrays(bool, n))
    k = data.draw(st.integers(0, 40))
    rows = [row for row in range(n) if eligible is None or eligible[row]]
    expected = sorted(rows, key=lambda row: -scores[row])[:k]
    assert top_rows(scores, k, eligible).tolist() == expected


@pytest.mark.parametrize("k", [1, 3, 4, 9])
def test_equal_scores_come_in_the_order_of_the_rows(k):
    assert top_rows(np.zeros(4), k).tolist() == [0, 1, 2, 3][:k]
