"""Searches that may miss rows, against brute force: whatever they return is right of its kind."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.search.backend import Search, Sought
from service.search.candidates import CandidateSearch, sampled_rows
from service.search.exact import ExactSearch
from service.search.int8 import Int8Search, int8_codes
from service.search.rabitq import RaBitQ, rabitq_bytes, rabitq_codes
from service.search.recall import best_by, own_queries, recall
from service.search.stored import StoredRows

N, D = 900, 100  # neither a multiple of a block of 32 rows nor a power of two


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Rows in groups that lie near each other, as passages of one kind do."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((N // 10, D))
    noise = generator.standard_normal((N, D))
    return unit(np.repeat(centres, 10, axis=0) + noise).astype(np.float16)


@pytest.fixture(scope="module")
def norms() -> np.ndarray:
    return np.random.default_rng(1).lognormal(sigma=2, size=N).astype(np.float32)


@pytest.fixture(scope="module")
def stored(rows) -> StoredRows:
    return StoredRows(np.split(rows, (1, 400)))


def open_inexact(kind: str, stored: StoredRows, norms: np.ndarray, rescored: int = 60) -> Search:
    if kind == "sq8":
        return Int8Search(int8_codes(stored), stored, norms)
    codes = RaBitQ(rabitq_codes(stored, norms), stored.rows, stored.dims, threads=2)
    return CandidateSearch("rabitq", codes, stored, norms, rescored=rescored)


@pytest.fixture(scope="module", params=["sq8", "rabitq"])
def inexact(request, stored, norms):
    search = open_inexact(request.param, stored, norms)
    yield search
    search.close()


def brute(rows, norms, query: Sought) -> list[int]:
    scores = rows.astype(np.float64) @ query.vector.astype(np.float64)
    scores = scores * norms if query.weighted else scores
    allowed = range(len(rows)) if query.allowed is None else np.flatnonzero(query.allowed)
    return sorted(allowed, key=lambda row: -scores[row])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_filter_gives_the_best_of_what_it_allows_however_few(inexact, rows, norms, data):
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count = data.draw(st.sampled_from([0, 1, 2, 9, 80, 400, N]))
    allowed = np.zeros(N, dtype=bool)
    allowed[generator.choice(N, count, replace=False)] = True
    near = rows[generator.integers(N)].astype(np.float64) + 0.05 * generator.standard_normal(D)
    query = Sought(
        unit(near).astype(np.float32),
        data.draw(st.sampled_from([1, 5, 20])),
        weighted=data.draw(st.booleans()),
        allowed=allowed,
        opponents=data.draw(st.booleans()),
    )
    [found] = inexact.search([query])
    ranked = brute(rows, norms, query)
    sides = [(found.proponents, ranked)] + [(found.opponents, ranked[::-1])] * query.opponents
    cosines = rows.astype(np.float64) @ query.vector
    for side, best in sides:
        assert allowed[side.rows].all()
        assert len(side.rows) == min(query.k, count)  # a filter never empties an answer
        np.testing.assert_allclose(side.cosines, cosines[side.rows], rtol=0, atol=D * 2.0**-24)
        if count < N // 10:  # so few are all compared
            assert side.rows.tolist() == best[: query.k]
        # What is given is in the right order, and the very best is hardly ever missed.
        order = {row: place for place, row in enumerate(best)}
        places = [order[row] for row in side.rows]
        assert places == sorted(places)
    if not query.opponents:
        assert len(found.opponents.rows) == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_the_best_are_found(inexact, rows, norms, weighted):
    generator = np.random.default_rng(5)
    asked = [
        Sought(unit(row + 0.05 * generator.standard_normal(D)).astype(np.float32), 10, weighted)
        for row in rows[::20].astype(np.float64)
    ]
    hits = [
        len(np.intersect1d(found.proponents.rows, brute(rows, norms, query)[:10]))
        for query, found in zip(asked, inexact.search(asked), strict=True)
    ]
    # 60 of 900 are compared again; one bit of each of 100 numbers estimates a cosine to ±.08,
    # neighbours have .5 and others ±.1, so of the ten nearest next to none is missed.
    assert np.mean(hits) / 10 > 0.95


def test_several_queries_at_once_find_what_each_finds_alone(inexact, rows):
    asked = [
        Sought(rows[0].astype(np.float32), 5),
        Sought(rows[1].astype(np.float32), 9, weighted=True),
        Sought(rows[2].astype(np.float32), 5, allowed=np.arange(N) < 500, opponents=False),
        Sought(rows[3].astype(np.float32), 5, allowed=np.arange(N) < 5),
    ]
    together = inexact.search(asked)
    for query, found in zip(asked, together, strict=True):
        [alone] = inexact.search([query])
        assert alone.proponents.rows.tolist() == found.proponents.rows.tolist()
        assert alone.opponents.rows.tolist() == found.opponents.rows.tolist()
        assert alone.highest == found.highest


def test_more_rows_compared_again_recall_more(rows, stored, norms):
    queries = own_queries(stored, count=40)
    exact = ExactSearch([rows], norms)
    truth = best_by(exact, stored, queries, 10)
    assert all(row * 2 not in found for row, found in zip(queries, truth, strict=True))
    reached = []
    for width in (10, 40, 160, N):
        search = open_inexact("rabitq", stored, norms, rescored=width)
        reached.append(recall(truth, best_by(search, stored, queries, 10)))
        search.close()
    exact.close()
    assert reached == sorted(reached)
    assert reached[0] < 0.9
    assert reached[-1] == 1


def test_rows_that_lie_near_are_found_first_at_the_dims_of_an_index():
    """Sums over 4,096 dims that wrap around in 16 bits would make them the last."""
    dims, cosines = 4096, (0.95, 0.8, 0.6, 0.4, 0.2)
    generator = np.random.default_rng(0)
    far = unit(generator.standard_normal((400, dims)))
    others = unit(generator.standard_normal((len(cosines), dims)))
    near = [c * far[0] + np.sqrt(1 - c * c) * o for c, o in zip(cosines, others, strict=True)]
    stored = StoredRows([np.concatenate([far, near]).astype(np.float16)])
    norms = np.ones(stored.rows, dtype=np.float32)
    # Ten are compared again. One-bit estimates at 4,096 dims are off by .012 in one standard
    # deviation, and among 400 random rows none reaches .2 by 8 of them.
    search = open_inexact("rabitq", stored, norms, rescored=10)
    [found] = search.search([Sought(far[0].astype(np.float32), 6)])
    assert found.proponents.rows.tolist() == [0, 400, 401, 402, 403, 404]
    [found] = search.search([Sought(-far[0].astype(np.float32), 6)])
    assert found.opponents.rows.tolist() == [0, 400, 401, 402, 403, 404]
    search.close()


def test_the_sample_is_uniform_fixed_and_its_cosines_are_exact(rows, stored, norms):
    search = open_inexact("rabitq", stored, norms)
    [found] = search.search([Sought(rows[0].astype(np.float32), 1, allowed=np.arange(N) < 3)])
    np.testing.assert_allclose(found.sample, rows @ rows[0].astype(np.float32), atol=1e-3)
    search.close()
    drawn = sampled_rows(1_000_000)
    assert len(np.unique(drawn)) == 4096
    assert np.array_equal(drawn, sampled_rows(1_000_000))
    # The mean of n uniform draws is off by N/√(12 n) in one standard deviation; five of them.
    assert abs(drawn.mean() - 500_000) < 5 * 1_000_000 / np.sqrt(12 * 4096)


@pytest.mark.parametrize("count", [1, 3, 31, 33, 70])
@pytest.mark.parametrize("kind", ["sq8", "rabitq"])
def test_an_index_of_few_rows_is_searched_whole(rows, norms, kind, count):
    search = open_inexact(kind, StoredRows([rows[:count]]), norms[:count], rescored=100)
    query = Sought(rows[0].astype(np.float32), 100)
    [found] = search.search([query])
    assert found.proponents.rows.tolist() == brute(rows[:count], norms[:count], query)
    assert found.opponents.rows.tolist() == found.proponents.rows.tolist()[::-1]
    search.close()


def test_codes_take_a_sixteenth_of_float16():
    assert rabitq_bytes(100_000, 4096) / 2 == 100_000 * (4096 // 8 + 8)
    assert 100_000 * 4096 * 2 / (rabitq_bytes(100_000, 4096) / 2) > 15


def test_the_codes_are_as_large_as_is_said(rows, stored, norms):
    arrays = rabitq_codes(stored, norms)
    assert arrays["codes"].nbytes + arrays["weighted_codes"].nbytes == rabitq_bytes(N, D)


def test_a_row_of_zeros_is_coded_and_never_best(norms):
    rows = unit(np.random.default_rng(7).standard_normal((50, D))).astype(np.float16)
    rows[7] = 0
    search = open_inexact("sq8", StoredRows([rows]), norms[:50])
    [found] = search.search([Sought(rows[3].astype(np.float32), 5)])
    assert 7 not in found.proponents.rows
    search.close()
