import numpy as np
import pytest

from influence.store import OwnerTotals
from service.owners import owner_shares


def totals(sums, names):
    sums = np.array(sums, dtype=np.float32)
    return OwnerTotals(tuple(names), sums, np.ones(len(sums)), np.ones(len(sums)))


def test_totals_are_sums_over_every_passage():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 16))
    owner_of = rng.integers(0, 4, 50)
    query = rng.standard_normal(16)
    names = ["a", "b", "c", "d"]
    sums = [vectors[owner_of == o].sum(axis=0) for o in range(4)]
    got = {s.owner: s.influence for s in owner_shares(query, totals(sums, names))}
    for o, name in enumerate(names):
        slow = sum(
            float(query @ v) for v, owner in zip(vectors, owner_of, strict=True) if owner == o
        )
        assert got[name] == pytest.approx(slow, abs=1e-4)


def test_shares_divide_what_is_positive():
    found = owner_shares(np.array([1.0]), totals([[3], [-5], [1], [0]], ["a", "b", "c", ""]))
    assert [(s.owner, s.influence, s.share) for s in found] == [
        ("a", 3.0, 0.75),
        ("c", 1.0, 0.25),
        (None, 0.0, 0.0),
        ("b", -5.0, 0.0),
    ]


def test_nobody_has_a_share_where_nothing_is_positive():
    found = owner_shares(np.array([1.0]), totals([[-3], [0]], ["a", "b"]))
    assert [s.share for s in found] == [0, 0]


def test_equal_owners_come_in_the_order_of_their_names():
    found = owner_shares(np.array([1.0]), totals([[2], [2], [2]], ["a", "b", "c"]))
    assert [s.owner for s in found] == ["a", "b", "c"]
