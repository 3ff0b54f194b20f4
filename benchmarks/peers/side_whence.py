"""Whence: vectors on disk; the service's exact search, in process and over HTTP."""

import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workload import (
    RANK,
    TOGETHER,
    arguments,
    load_documents,
    load_model,
    seconds,
    tell,
    tell_logging,
)  # fmt: skip

from benchmarks.clients import closed_loop
from benchmarks.logging import load as as_loaded
from benchmarks.logging import make_encoder
from benchmarks.serving import UNCACHED, prepare, serving
from indexer.batches import batches
from influence.tokens import Passage, TokenSequence
from service.search.backend import Sought
from service.search.exact import ExactSearch

DIMS = 4096
SERVED_WIDTH = 32  # of the model behind HTTP: what is measured is the service


def passages(documents):
    made = []
    for number, ids in enumerate(documents):
        targets = [False] + [True] * (len(ids) - 1)
        tokens = TokenSequence(ids, targets, [(0, 0)] * len(ids))
        made.append(Passage(str(number), "", 0, 0, 0, tokens))
    return made


def logging(folder, lengths):
    documents, budget = load_documents(folder, lengths)
    encoder = make_encoder(as_loaded(load_model(folder), "float32"), RANK, DIMS)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vectors.npy"

        def log(documents):
            made = passages(documents)
            with path.open("wb") as stream:
                for batch in batches(made, token_budget=budget):
                    vectors = encoder.encode([made[i].tokens for i in batch]).vectors
                    norms = vectors.norm(dim=1, keepdim=True)
                    np.save(stream, (vectors / norms).half().numpy())
                    np.save(stream, norms.numpy())

        log(documents[:8])
        took = seconds(lambda: log(documents))
        tell_logging(documents, took, path.stat().st_size / 1e6)


def search(count):
    generator = np.random.default_rng(0)
    units = generator.normal(size=(count, DIMS)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    norms = np.ones(count, dtype=np.float32)
    search = ExactSearch([units.astype(np.float16)], norms, threads=torch.get_num_threads())
    del units
    figures = {}
    for together in (1, TOGETHER):
        queries = generator.normal(size=(together, DIMS)).astype(np.float32)
        asked = [Sought(q / np.linalg.norm(q), 10) for q in queries]
        search.search(asked)
        took = min(seconds(lambda a=asked: search.search(a)) for _ in range(5))
        figures[f"pairs_per_s_{together}"] = together * count / took
    search.close()
    tell(dims=DIMS, **figures)


def over_http(count):
    """Whole answers of a real server: the query's gradient, search, texts, JSON."""
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        places = prepare(Path(scratch), SERVED_WIDTH, count)
        with serving(places, **UNCACHED) as (port, _):
            for clients in (1, TOGETHER):
                measured = asyncio.run(closed_loop(port, clients, 4 * TOGETHER, same=False))
                figures[f"pairs_per_s_{clients}"] = measured.rate() * count
    tell(dims=1024, **figures)


def main():
    folder, what, of = arguments()
    if what == "logging":
        logging(folder, of)
    elif what == "search":
        search(int(of))
    else:
        over_http(int(of))


main()
