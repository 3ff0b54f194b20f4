"""Owners of a period as players, against the definition of their values."""

import random
from itertools import permutations

import numpy as np
import pytest

from influence.errors import InvalidInput
from service.valuation import period_games
from service.valuation.aliases import add_alias
from service.valuation.period_games import owner_game

NAMES = (None, "Anna", "Bruno", "Chloe")


@pytest.fixture
def month(ledger, owners, entry, totals):
    draw = random.Random(5)
    rows = [totals(draw) for _ in range(30)]
    ledger.append([owners()])
    ledger.append([entry(f"r{i}", row, usage=1.0 + i % 2) for i, row in enumerate(rows)])
    ledger.rows = np.array([[row[name] for name in NAMES] for row in rows])
    ledger.usage = 1.0 + np.arange(30) % 2
    return ledger


def shapley(rows, usage):
    """The mean over all orders of what a player adds."""

    def worth(inside):
        return float(usage @ np.maximum(rows[:, sorted(inside)].sum(axis=1), 0))

    values = np.zeros(rows.shape[1])
    orders = list(permutations(range(rows.shape[1])))
    for order in orders:
        for place, player in enumerate(order):
            values[player] += worth(order[: place + 1]) - worth(order[:place])
    return values / len(orders)


def test_estimates_are_within_their_bounds_of_the_mean_over_all_orders(month):
    exact = dict(zip(NAMES, shapley(month.rows, month.usage), strict=True))
    linear = dict(zip(NAMES, month.usage @ month.rows, strict=True))
    found = owner_game(month, "2026-10", orders=300)
    assert found["answers"] == 30
    for line in found["owners"]:
        assert abs(line["shapley"] - exact[line["owner"]]) <= line["shapley_error"]
        assert line["linear"] == pytest.approx(linear[line["owner"]])
        others = [i for i, name in enumerate(NAMES) if name != line["owner"]]
        without = month.usage @ np.maximum(month.rows[:, others].sum(axis=1), 0)
        whole = month.usage @ np.maximum(month.rows.sum(axis=1), 0)
        assert line["leave_one_out"] == pytest.approx(whole - without)
    # Every order hands out the worth of all, to rounding.
    assert sum(line["shapley"] for line in found["owners"]) == pytest.approx(whole)
    assert found == owner_game(month, "2026-10", orders=300)


def test_owners_that_were_merged_are_one_player(month):
    add_alias(month, "Bruno", "Anna")
    found = owner_game(month, "2026-10", orders=5)
    assert {line["owner"] for line in found["owners"]} == {None, "Anna", "Chloe"}


def test_a_period_without_answers_or_with_too_many_is_refused(month, monkeypatch):
    with pytest.raises(InvalidInput, match="no attributions"):
        owner_game(month, "2025", orders=5)
    monkeypatch.setattr(period_games, "MOST_TOTALS", 100)
    with pytest.raises(InvalidInput, match="shorter period"):
        owner_game(month, "2026-10", orders=5)
