import subprocess
import sys

import faiss
import numpy as np
import pytest

from influence.errors import IndexUnavailable
from service.search.backend import Sought
from service.search.exact import ExactSearch, choose_precision
from service.search.top import top_rows

N, D = 700, 96
ONES = np.ones(N, dtype=np.float32)


@pytest.fixture(scope="module")
def units() -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((N, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def query() -> np.ndarray:
    vector = np.random.default_rng(1).standard_normal(D)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def split(units, *at):
    return np.split(units, at)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("at", [(), (1, 2, 300), (512,)], ids=str)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_scores_are_the_inner_products_of_all_rows(units, query, precision, at, threads):
    search = ExactSearch(split(units, *at), ONES, precision=precision, threads=threads)
    exact = units.astype(np.float64) @ query.astype(np.float64)
    # A float32 sum of D products of a unit vector is off by D * 2^-24 at most.
    np.testing.assert_allclose(search.scores(query[None])[0], exact, rtol=0, atol=D * 2.0**-24)
    search.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_scores_of_many_are_the_matrix_product(units, precision, count):
    queries = np.random.default_rng(2).standard_normal((count, D))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    search = ExactSearch(split(units, 1, 300), ONES, precision=precision, threads=1)
    exact = queries.astype(np.float32).astype(np.float64) @ units.astype(np.float64).T
    got = search.scores_of_many(queries.astype(np.float32))
    np.testing.assert_allclose(got, exact, rtol=0, atol=D * 2.0**-24)  # as of a single query
    search.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_ranking_is_that_of_faiss_and_of_brute_force(units, query, precision):
    search = ExactSearch(split(units, 123), ONES, precision=precision)
    flat = faiss.IndexFlatIP(D)
    flat.add(units.astype(np.float32))
    exact = units.astype(np.float64) @ query.astype(np.float64)
    for sign in (1, -1):  # proponents, opponents
        got = top_rows(sign * search.scores(query[None])[0], 50)
        _, by_faiss = flat.search(sign * query[None], 50)
        assert got.tolist() == by_faiss[0].tolist() == np.argsort(-sign * exact)[:50].tolist()
    search.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_same_query_gives_the_same_bits(units, query, precision):
    search = ExactSearch([units], ONES, precision=precision, threads=3)
    first = search.scores(query[None])[0]
    assert all(np.array_equal(search.scores(query[None])[0], first) for _ in range(100))
    search.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_an_index_of_few_rows(units, query, precision, rows):
    search = ExactSearch([units[:rows]], ONES, precision=precision, threads=4)
    np.testing.assert_allclose(search.scores(query[None])[0], units[:rows] @ query, atol=1e-3)
    search.close()


def test_a_row_that_opposes_the_query_exactly_is_found(query):
    unit = query.astype(np.float16)
    search = ExactSearch([np.stack([-unit, unit])], ONES, precision="float32")
    np.testing.assert_allclose(search.scores(query[None])[0], [-1, 1], atol=1e-3)
    search.close()


def test_a_query_of_another_length_is_refused(units):
    search = ExactSearch([units], ONES)
    with pytest.raises(ValueError, match=r"\(95,\).*96"):
        search.search([Sought(np.zeros(D - 1, dtype=np.float32), k=1)])
    search.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [None, 0.5, 0.005, 0.0])
def test_a_search_is_a_sort_of_all_scores(units, precision, weighted, share):
    generator = np.random.default_rng(2)
    norms = generator.lognormal(size=N).astype(np.float32)
    search = ExactSearch([units], norms, precision=precision)
    asked = [
        Sought(vector, k, weighted, None if share is None else generator.random(N) < share)
        for k, vector in enumerate(units[:5].astype(np.float32), start=3)
    ]
    for query, found in zip(asked, search.search(asked), strict=True):
        cosines = units.astype(np.float64) @ query.vector
        scores = cosines * norms if weighted else cosines
        allowed = range(N) if query.allowed is None else np.flatnonzero(query.allowed)
        best = sorted(allowed, key=lambda row: -scores[row])
        assert found.proponents.rows.tolist() == best[: query.k]
        assert found.opponents.rows.tolist() == best[::-1][: query.k]
        np.testing.assert_allclose(
            found.opponents.cosines, cosines[found.opponents.rows], atol=D * 2.0**-24
        )
        assert found.highest == pytest.approx(max(cosines[list(allowed)], default=-1), abs=1e-5)
        np.testing.assert_allclose(found.sample, cosines, atol=D * 2.0**-24)
    search.close()


def test_opponents_only_where_they_are_wanted(units, query):
    search = ExactSearch([units], ONES)
    [found] = search.search([Sought(query, k=3, opponents=False)])
    assert len(found.proponents.rows) == 3
    assert len(found.opponents.rows) == 0
    search.close()


def test_precision_follows_the_memory():
    assert choose_precision(1000, 100, memory_bytes=400_000) == "float32"
    assert choose_precision(1000, 100, memory_bytes=399_999) == "float16"
    assert choose_precision(1000, 100, memory_bytes=200_000) == "float16"
    with pytest.raises(IndexUnavailable, match=r"200,000.*199,999.*WHENCE_SEARCH_MEMORY_BYTES"):
        choose_precision(1000, 100, memory_bytes=199_999)


def test_the_benchmark_runs():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.search", "--rows=64", "--dims=32", "--repeats=1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "| float16 Whence, ranked |" in done.stdout
