"""Values of owners against the definition: all coalitions, all orders."""

from itertools import permutations

import numpy as np
import pytest

from service.valuation.games import (
    clipped_utility,
    leave_one_out,
    linear_utility,
    monte_carlo_banzhaf,
    monte_carlo_shapley,
)

DRAW = np.random.default_rng(0)


def coalitions(players: int) -> np.ndarray:
    return (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(bool)


def shapley_by_enumeration(utility, players: int) -> np.ndarray:
    """Σ_S |S|! (n - |S| - 1)! / n! (v(S ∪ {o}) - v(S)) over every coalition without o."""
    from math import factorial

    every = coalitions(players)
    worth = utility(every)
    values = np.zeros(players)
    for o in range(players):
        without = np.flatnonzero(~every[:, o])
        sizes = every[without].sum(axis=1)
        share = [
            factorial(int(s)) * factorial(players - int(s) - 1) / factorial(players) for s in sizes
        ]
        values[o] = np.array(share) @ (worth[without + (1 << o)] - worth[without])
    return values


def banzhaf_by_enumeration(utility, players: int) -> np.ndarray:
    every = coalitions(players)
    worth = utility(every)
    return np.array(
        [
            (worth[without + (1 << o)] - worth[without]).mean()
            for o in range(players)
            for without in [np.flatnonzero(~every[:, o])]
        ]
    )


@pytest.mark.parametrize("players", range(1, 11))
def test_the_total_of_an_owner_is_its_shapley_value_under_the_linear_utility(players):
    totals, weights = DRAW.normal(size=(20, players)), DRAW.random(20)
    utility = linear_utility(totals, weights)
    exact = weights @ totals
    # Sums of up to 2^10 float64 terms of order 10.
    np.testing.assert_allclose(shapley_by_enumeration(utility, players), exact, atol=1e-11)
    np.testing.assert_allclose(banzhaf_by_enumeration(utility, players), exact, atol=1e-11)
    np.testing.assert_allclose(leave_one_out(utility, players), exact, atol=1e-11)


def test_the_enumeration_is_the_mean_over_all_orders():
    totals, weights = DRAW.normal(size=(5, 4)), DRAW.random(5)
    utility = clipped_utility(totals, weights)
    values = np.zeros(4)
    for order in permutations(range(4)):
        inside = np.zeros((1, 4), dtype=bool)
        for player in order:
            before = utility(inside)[0]
            inside[0, player] = True
            values[player] += utility(inside)[0] - before
    np.testing.assert_allclose(shapley_by_enumeration(utility, 4), values / 24, atol=1e-12)


@pytest.mark.parametrize("tolerance", [0.0, 0.5])
def test_estimates_for_the_clipped_utility_keep_their_error_bounds(tolerance):
    totals, weights = DRAW.normal(size=(20, 8)), DRAW.random(20)
    utility = clipped_utility(totals, weights)
    ranges = weights @ np.abs(totals)
    shapley = monte_carlo_shapley(utility, ranges, orders=200, tolerance=tolerance)
    banzhaf = monte_carlo_banzhaf(utility, ranges, coalitions=500)
    # One seed, so it holds or not for good; Hoeffding promises each of them at .95.
    assert (np.abs(shapley.values - shapley_by_enumeration(utility, 8)) <= shapley.errors).all()
    assert (np.abs(banzhaf.values - banzhaf_by_enumeration(utility, 8)) <= banzhaf.errors).all()
    # A bound that is wider than what it bounds would say nothing.
    assert (shapley.errors < ranges * 0.11 + tolerance).all()


def test_an_order_and_its_reverse_err_less_than_two_orders():
    totals, weights = np.random.default_rng(1).normal(size=(20, 8)), np.ones(20)
    utility = clipped_utility(totals, weights)
    exact = shapley_by_enumeration(utility, 8)
    rng = np.random.default_rng(2)
    antithetic, plain = [], []
    for seed in range(40):
        found = monte_carlo_shapley(utility, np.ones(8), orders=10, seed=seed)
        antithetic.append(((found.values - exact) ** 2).sum())
        values = np.zeros(8)
        for _ in range(20):
            inside = np.zeros((1, 8), dtype=bool)
            for player in rng.permutation(8):
                before = utility(inside)[0]
                inside[0, player] = True
                values[player] += utility(inside)[0] - before
        plain.append(((values / 20 - exact) ** 2).sum())
    assert np.mean(antithetic) < np.mean(plain)
