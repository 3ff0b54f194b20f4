"""Every way to search an index: bytes, build time, latency, throughput and what it misses.

    python -m benchmarks.search                        100,000 random unit vectors of 4,096 numbers
    python -m benchmarks.search --index FOLDER         the vectors of an index (`real_vectors`)
    python -m benchmarks.search --plot FILE.svg        a picture of the table as well

All ways run in turn, round after round, so that whatever else the machine does hits them alike. A
single query is timed as a request needs it: the ten best and the ten worst rows. *Read* is how long
the same threads take to read the float16 bytes of all rows, a plain maximum over them; the ratios
are to it, those of float32 to its own bytes. *CPU* is the processor time of a single query, all
threads together, which other work on the machine changes least. Recall is that of rows as queries,
themselves left out, on both sides.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.search_plot import Point, plotted
from influence.atomic import write_bytes
from influence.store import IndexReader
from service.search.backend import Search, Sought
from service.search.candidates import CandidateSearch, sampled_rows
from service.search.exact import ExactSearch, available_threads
from service.search.int8 import Int8Search, int8_codes
from service.search.rabitq import RaBitQ, rabitq_codes
from service.search.recall import best_by, own_queries, recall
from service.search.stored import StoredRows

K = 10
TOGETHER = 32
CANDIDATES = (200, 400, 1600)  # rows compared again behind one-bit codes


@dataclass(frozen=True)
class Way:
    """One row of the table; ``scanned`` bytes are read for each query, rows compared again and
    those of the sample for the spread of the scores among them."""

    name: str
    search: Search
    scanned: int
    build_s: float


def random_rows(rows: int, dims: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    out = np.empty((rows, dims), dtype=np.float16)
    for start in range(0, rows, 1000):
        block = generator.standard_normal((min(1000, rows - start), dims), dtype=np.float32)
        out[start : start + 1000] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return out


def built(make: Callable[[], Search]) -> tuple[Search, float]:
    begun = time.perf_counter()
    return make(), time.perf_counter() - begun


def ways(shards: list[np.ndarray], norms: np.ndarray, threads: int) -> list[Way]:
    stored = StoredRows(shards)
    size = stored.rows * stored.dims
    out = []
    for precision, scanned in (("float32", 4 * size), ("float16", 2 * size)):
        search, build_s = built(
            lambda p=precision: ExactSearch(shards, norms, precision=p, threads=threads)
        )
        out.append(Way(precision, search, scanned, build_s))
    search, build_s = built(lambda: Int8Search(int8_codes(stored), stored, norms, threads=threads))
    out.append(Way("sq8", search, size, build_s))
    begun = time.perf_counter()
    codes = rabitq_codes(stored, norms)
    build_s = time.perf_counter() - begun
    for candidates in CANDIDATES:
        nearest = RaBitQ(codes, stored.rows, stored.dims, threads=threads)
        search = CandidateSearch("rabitq", nearest, stored, norms, rescored=candidates, recall=None)
        again = 2 * candidates + len(sampled_rows(stored.rows))
        scanned = codes["codes"].nbytes + 2 * again * stored.dims
        out.append(Way(f"rabitq, {candidates} again", search, scanned, build_s))
    return out


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def reading(shards: list[np.ndarray], pool: ThreadPoolExecutor, threads: int) -> float:
    parts = [part for shard in shards for part in np.array_split(shard, threads) if len(part)]
    return seconds(
        lambda: list(pool.map(lambda part: part.reshape(-1).view(np.int64).max(), parts))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", type=Path, help="an index; random vectors without")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--plot", type=Path, help="an SVG of the table")
    arguments = parser.parse_args()
    if arguments.index:
        reader = IndexReader.open(arguments.index)
        shards, norms = reader.vector_shards(), reader.norms
    else:
        shards = [random_rows(arguments.rows, arguments.dims)]
        norms = np.ones(arguments.rows, dtype=np.float32)
    stored = StoredRows(shards)
    threads, pool = arguments.threads, ThreadPoolExecutor(arguments.threads)
    found = ways(shards, norms, threads)
    draw = own_queries(stored, count=max(64, TOGETHER))
    vectors = stored.take(draw)
    together = [Sought(vector, K) for vector in vectors[:TOGETHER]]
    read: list[float] = []
    cpu: dict[str, list[float]] = {way.name: [] for way in found}
    single: dict[str, list[float]] = {way.name: [] for way in found}
    batched: dict[str, list[float]] = {way.name: [] for way in found}
    for number in range(arguments.rounds + 1):
        query = [Sought(vectors[number % len(vectors)], K)]
        took = reading(shards, pool, threads)
        for way in found:
            begun = time.process_time()
            elapsed = seconds(lambda w=way, q=query: w.search.search(q))
            if number:  # the first round warms up
                single[way.name].append(elapsed)
                cpu[way.name].append(time.process_time() - begun)
        if number:
            read.append(took)
        if number % 10 == 1:
            for way in found:
                batched[way.name].append(seconds(lambda w=way: w.search.search(together)))
    truth = {k: best_by(found[0].search, stored, draw, k) for k in (10, 100)}
    print(
        f"{stored.rows:,} rows of {stored.dims:,} numbers, {threads} threads, "
        f"{platform.processor() or platform.machine()}; read of the float16 bytes: "
        f"{1e3 * statistics.median(read):.1f} ms"
    )
    print("| way | bytes scanned a row | build s | p50 ms | p95 ms | CPU ms "
          "| of reading | queries/s, 32 together | recall@10 | recall@100 |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    points = []
    for way in found:
        times = sorted(single[way.name])
        floor = statistics.median(read) * (2 if way.name == "float32" else 1)
        p50, p95 = statistics.median(times), times[int(0.95 * (len(times) - 1))]
        recalls = [recall(truth[k], best_by(way.search, stored, draw, k)) for k in (10, 100)]
        print(
            f"| {way.name} | {way.scanned / stored.rows:,.0f} | {way.build_s:.1f} "
            f"| {1e3 * p50:.1f} | {1e3 * p95:.1f} "
            f"| {1e3 * statistics.median(cpu[way.name]):.1f} | {p50 / floor:.2f} "
            f"| {TOGETHER / statistics.median(batched[way.name]):.0f} "
            f"| {recalls[0]:.3f} | {recalls[1]:.3f} |"
        )
        points.append(Point(way.name, way.scanned / stored.rows, 1e3 * p50, recalls[0]))
        way.search.close()
    if arguments.plot:
        title = f"{stored.rows:,} rows of {stored.dims:,} numbers: each way and its recall@10"
        write_bytes(arguments.plot, plotted(points, title).encode())


if __name__ == "__main__":
    main()
