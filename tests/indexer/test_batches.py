"""Batches against brute force and against what the budget and the limit promise."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.batches import PADDING_LIMIT, _cut, batches, padding_share
from influence.tokens import Passage, TokenSequence


def passages(lengths):
    return [
        Passage("d#0", "d", 0, 0, 1, TokenSequence([0] * n, [False] * n, [(0, 0)] * n))
        for n in lengths
    ]


@given(lengths=st.lists(st.integers(2, 600), max_size=80), budget=st.integers(1, 3000))
@settings(deadline=None)
def test_every_index_once_within_the_budget_and_the_limit(lengths, budget):
    items = passages(lengths)
    groups = batches(items, token_budget=budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[i] for i in group)
        assert len(group) * longest <= budget or len(group) == 1
    assert padding_share(items, groups) < PADDING_LIMIT
    assert groups == batches(items, token_budget=budget)
    longest_first = [lengths[group[0]] for group in groups]
    assert longest_first == sorted(longest_first, reverse=True)


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8),
    budget=st.integers(1, 90),
    price=st.integers(0, 40),
)
@settings(deadline=None)
def test_the_cuts_are_the_cheapest_of_all(lengths, budget, price):
    lengths = np.sort(lengths)[::-1]
    n = len(lengths)

    def cost(cuts):
        runs = [lengths[i:j] for i, j in pairwise(cuts)]
        if any(len(run) > 1 and len(run) * run[0] > budget for run in runs):
            return np.inf
        return sum(len(run) * run[0] + price for run in runs)

    cheapest = min(cost((0, *inner, n)) for k in range(n) for inner in combinations(range(1, n), k))
    assert cost(tuple(_cut(lengths, budget, price))) == cheapest


@pytest.mark.parametrize("count", [256, 1024])
@pytest.mark.parametrize("spread", [0.6, 1.2])
@pytest.mark.parametrize("budget", [1024, 4096, 16384])
def test_documents_of_realistic_lengths_waste_little(count, spread, budget):
    lengths = np.random.default_rng(0).lognormal(np.log(130), spread, count).astype(int) + 2
    lengths = np.minimum(lengths, 512).tolist()
    items = passages(lengths)
    groups = batches(items, token_budget=budget)
    assert padding_share(items, groups) < PADDING_LIMIT
    # And not by tiny batches: where each spans a factor of 1.1 in length, about 5 % is padding, so
    # beside the batches that the budget asks for there is one for each such factor.
    assert len(groups) <= 1.1 * sum(lengths) / budget + np.log(512 / min(lengths)) / np.log(1.1)


def test_padding_is_counted_as_it_is_computed():
    items = passages([4, 2, 3])
    assert padding_share(items, [[0, 1, 2]]) == pytest.approx(3 / 12)
    assert padding_share(items, [[0], [1], [2]]) == 0
    assert padding_share(items, []) == 0


def test_a_passage_beyond_the_budget_is_a_batch_of_its_own():
    assert batches(passages([3, 50, 3, 60]), token_budget=10) == [[3], [1], [0, 2]]
    assert batches([], token_budget=10) == []
    with pytest.raises(ValueError, match="token_budget is 0"):
        batches(passages([3]), token_budget=0)
