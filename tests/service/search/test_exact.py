import subprocess
import sys

import numpy as np
import pytest

from service.search.backend import Sought
from service.search.exact import MATRIX_FROM, ExactSearch

N, D = 700, 96
ONES = np.ones(N, dtype=np.float32)
PRECISIONS = ["float32", "float16", "disk"]
# A float32 sum of D products of a unit vector is off by D * 2^-24 at most; a scan of halves by the
# rounding of the query to 11 bits besides, 2^-12 of its length on average and 2^-11 at most.
SUMS = D * 2.0**-24
OFF = {"float32": SUMS, "float16": SUMS + 2.0**-11, "disk": SUMS + 2.0**-11}


@pytest.fixture(scope="module")
def units() -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((N, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def queries(count: int, seed: int = 1) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, D))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("at", [(), (1, 2, 300), (512,)], ids=str)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 2, MATRIX_FROM, 17])
def test_a_search_is_a_sort_of_all_inner_products(units, precision, at, threads, count):
    search = ExactSearch(np.split(units, at), ONES, precision=precision, threads=threads)
    asked = queries(count)
    for query, found in zip(asked, search.search([Sought(q, 50) for q in asked]), strict=True):
        exact = units.astype(np.float64) @ query.astype(np.float64)
        assert found.proponents.rows.tolist() == np.argsort(-exact)[:50].tolist()
        assert found.opponents.rows.tolist() == np.argsort(exact)[:50].tolist()
        for side in (found.proponents, found.opponents):
            np.testing.assert_allclose(side.cosines, exact[side.rows], rtol=0, atol=SUMS)
        np.testing.assert_allclose(found.sample, exact, rtol=0, atol=OFF[precision])
        assert found.highest == found.proponents.cosines[0]
    search.close()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("share", [None, 0.5, 0.005, 0.0])
def test_weights_and_filters_are_those_of_the_sort(units, precision, weighted, share):
    generator = np.random.default_rng(2)
    norms = generator.lognormal(size=N).astype(np.float32)
    search = ExactSearch([units], norms, precision=precision)
    asked = [
        Sought(vector, k, weighted, None if share is None else generator.random(N) < share)
        for k, vector in enumerate(queries(3), start=3)
    ]
    for query, found in zip(asked, search.search(asked), strict=True):
        cosines = units.astype(np.float64) @ query.vector
        scores = cosines * norms if weighted else cosines
        allowed = range(N) if query.allowed is None else np.flatnonzero(query.allowed)
        best = sorted(allowed, key=lambda row: -scores[row])
        assert found.proponents.rows.tolist() == best[: query.k]
        assert found.opponents.rows.tolist() == best[::-1][: query.k]
        assert found.highest == pytest.approx(max(cosines[list(allowed)], default=-1), abs=SUMS)
    search.close()


@pytest.mark.parametrize("precision", ["float16", "disk"])
def test_rows_that_rounding_of_the_query_would_swap_are_compared_again(precision):
    query = queries(1)[0]
    # Rows whose cosines differ by far less than the rounding of the query to float16 moves them.
    rows = queries(200, seed=3)
    rows -= np.outer(rows @ query, query)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    exact = rows.astype(np.float64) @ query.astype(np.float64)
    rounded = rows.astype(np.float64) @ query.astype(np.float16).astype(np.float64)
    assert np.argsort(-exact)[:20].tolist() != np.argsort(-rounded)[:20].tolist()
    search = ExactSearch([rows], np.ones(200, dtype=np.float32), precision=precision)
    [found] = search.search([Sought(query, 20)])
    np.testing.assert_allclose(found.proponents.cosines, np.sort(exact)[::-1][:20], atol=SUMS)
    search.close()


def test_opponents_only_where_they_are_wanted(units):
    search = ExactSearch([units], ONES)
    [found] = search.search([Sought(queries(1)[0], k=3, opponents=False)])
    assert len(found.proponents.rows) == 3
    assert len(found.opponents.rows) == 0
    search.close()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_same_query_gives_the_same_bits(units, precision):
    search = ExactSearch([units], ONES, precision=precision, threads=3)
    [first] = search.search([Sought(queries(1)[0], k=5)])
    for _ in range(100):
        [again] = search.search([Sought(queries(1)[0], k=5)])
        assert np.array_equal(again.sample, first.sample)
        assert np.array_equal(again.opponents.cosines, first.opponents.cosines)
    search.close()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_an_index_of_few_rows(units, precision, rows):
    search = ExactSearch([units[:rows]], ONES[:rows], precision=precision, threads=4)
    [found] = search.search([Sought(queries(1)[0], k=100)])
    exact = units[:rows].astype(np.float64) @ queries(1)[0]
    assert found.proponents.rows.tolist() == np.argsort(-exact).tolist()
    search.close()


def test_equal_rows_come_in_their_order(units):
    search = ExactSearch([np.tile(units[:1], (9, 1))], ONES[:9], precision="float16")
    [found] = search.search([Sought(queries(1)[0], k=4)])
    assert found.proponents.rows.tolist() == found.opponents.rows.tolist() == [0, 1, 2, 3]
    search.close()


def test_a_query_of_another_length_is_refused(units):
    search = ExactSearch([units], ONES)
    with pytest.raises(ValueError, match=r"\(95,\).*96"):
        search.search([Sought(np.zeros(D - 1, dtype=np.float32), k=1)])
    search.close()


PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from influence.vector_file import VectorFile
from service.search.backend import Sought
from service.search.exact import ExactSearch
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
shards = [VectorFile(Path(p), np.load(p, mmap_mode="r")) for p in sys.argv[1:]]
rows, dims = sum(map(len, shards)), shards[0].shape[1]
search = ExactSearch(shards, np.ones(rows), precision="disk", threads=2, part_bytes=2**20)
query = np.zeros(dims, dtype=np.float32); query[0] = 1
search.search([Sought(query, 10)] * 5)  # whatever the libraries allocate once
search.search([Sought(query, 10)])
before, most = resident(), 0
for _ in range(5):
    for count in (1, 5):
        search.search([Sought(query, 10)] * count)
        most = max(most, resident())
print(most - before)
"""


def test_an_index_larger_than_the_memory_allowed_is_read_from_disk_within_it(tmp_path):
    paths = []
    for number in range(4):  # 4 × 16 MB
        rows = np.random.default_rng(number).standard_normal((2048, 4096)).astype(np.float16)
        np.save(tmp_path / f"{number}.npy", rows)
        paths.append(str(tmp_path / f"{number}.npy"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    # Two parts of 1 MB and their float32 copies of 2 MB, and as much again that malloc keeps of
    # those before; were the rows kept, it would grow by 64.
    assert int(done.stdout) < 12 * 2**20
