"""One query against the whole index: ways to scan it, beside the time memory takes to be read.

    python -m benchmarks.search [--rows 20000 --dims 4096 --threads 2 --repeats 15]

All ways run in turn, round after round, so that whatever else the machine does hits them alike; the
median of each counts. The ratio is to the fastest plain read of the same bytes by as many threads.
A way that gives only the k best needs two scans, for proponents and opponents; one that gives every
score needs one.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from service.search.exact import ExactSearch, available_threads
from service.search.top import top_rows

K = 10


@dataclass(frozen=True)
class Way:
    name: str
    size_bytes: int
    run: Callable[[], Any]


def unit_vectors(rows: int, dims: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    out = np.empty((rows, dims), dtype=np.float16)
    for start in range(0, rows, 1000):
        block = generator.standard_normal((min(1000, rows - start), dims), dtype=np.float32)
        out[start : start + 1000] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return out


def read_in_threads(array: np.ndarray, pool: ThreadPoolExecutor, threads: int) -> Callable[[], Any]:
    parts = np.array_split(array.reshape(-1).view(np.int64), threads)
    return lambda: list(pool.map(np.max, parts))


def faiss_index(vectors: np.ndarray, precision: str) -> Any:
    dims = vectors.shape[1]
    if precision == "float32":
        index: Any = faiss.IndexFlatIP(dims)
    else:
        index = faiss.IndexScalarQuantizer(
            dims, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
    index.add(vectors.astype(np.float32))
    return index


def in_shards(vectors: np.ndarray, precision: str, threads: int) -> Any:
    """FAISS's own way to put several threads on one query."""
    shards = faiss.IndexShards(vectors.shape[1], True, True)
    parts = [faiss_index(part, precision) for part in np.array_split(vectors, threads)]
    for part in parts:
        shards.add_shard(part)
    return shards


def attribute(search: ExactSearch, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a request needs: every score, the k best and the k worst."""
    scores = search.scores(query[None])[0]
    return top_rows(scores, K), top_rows(-scores, K)


def ways(vectors: np.ndarray, query: np.ndarray, threads: int) -> list[Way]:
    full = vectors.astype(np.float32)
    pool = ThreadPoolExecutor(threads)
    both = np.stack([query, -query])
    out = [
        Way("read float32", full.nbytes, read_in_threads(full, pool, threads)),
        Way("read float16", vectors.nbytes, read_in_threads(vectors, pool, threads)),
        Way("float32 numpy, all scores", full.nbytes, lambda: full @ query),
    ]
    for precision, size in (("float32", full.nbytes), ("float16", vectors.nbytes)):
        alone = faiss_index(vectors, precision)
        shards = in_shards(vectors, precision, threads)
        search = ExactSearch([vectors], np.ones(len(vectors)), precision=precision, threads=threads)
        out += [
            Way(f"{precision} faiss, q", size, lambda i=alone: i.search(query[None], K)),
            Way(f"{precision} faiss, q and -q", size, lambda i=alone: i.search(both, K)),
            Way(f"{precision} IndexShards, q", size, lambda i=shards: i.search(query[None], K)),
            Way(f"{precision} IndexShards, q and -q", size, lambda i=shards: i.search(both, K)),
            Way(f"{precision} Whence, all scores", size, lambda s=search: s.scores(query[None])),
            Way(f"{precision} Whence, ranked", size, lambda s=search: attribute(s, query)),
        ]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Ways to scan an index with one query.")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dims", type=int, default=4_096)
    parser.add_argument("--threads", type=int, default=available_threads())
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    vectors = unit_vectors(arguments.rows, arguments.dims)
    query = unit_vectors(1, arguments.dims)[0].astype(np.float32)
    measured = ways(vectors, query, arguments.threads)
    seconds: dict[str, list[float]] = {way.name: [] for way in measured}
    for repeat in range(arguments.repeats + 1):  # the first round warms up
        for way in measured:
            begun = time.perf_counter()
            way.run()
            if repeat:
                seconds[way.name].append(time.perf_counter() - begun)
    print(
        f"{arguments.rows:,} x {arguments.dims:,}, {arguments.threads} threads of "
        f"{os.cpu_count()} cores, {platform.machine()}, faiss {faiss.__version__}, "
        f"load {os.getloadavg()[0]:.1f}, {arguments.repeats} rounds\n"
    )
    print("| way | median ms | best ms | GB/s | ratio to reading, median (best) |")
    print("|---|---|---|---|---|")
    for way in measured:
        own = seconds[way.name]
        read = seconds["read float32" if "float32" in way.name else "read float16"]
        median, best = statistics.median(own), min(own)
        print(
            f"| {way.name} | {1e3 * median:.1f} | {1e3 * best:.1f} "
            f"| {way.size_bytes / median / 1e9:.1f} "
            f"| {median / statistics.median(read):.2f} ({best / min(read):.2f}) |"
        )


if __name__ == "__main__":
    main()
