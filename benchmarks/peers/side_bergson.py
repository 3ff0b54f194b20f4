"""Bergson: its gradient collector with rank × rank projections, and the Attributor's search.

Batches are those of its own bin packing. Scores for the LDS are cosines of gradients without a
Hessian, which is what its Attributor gives of a collected store.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from bergson import Attributor, GradientProcessor, IndexConfig, collect_gradients
from bergson.data import allocate_batches, column_offsets, load_gradients
from datasets import Dataset
from workload import (
    RANK,
    SEARCH_RANK,
    TOGETHER,
    arguments,
    folder_mb,
    load_documents,
    load_model,
    load_task,
    seconds,
    tell,
    tell_logging,
)  # fmt: skip


def collect(model, documents, labels, folder, rank, budget):
    lengths = list(map(len, documents))
    data = Dataset.from_dict({"input_ids": documents, "labels": labels, "length": lengths})
    config = IndexConfig(run_path=str(folder), projection_dim=rank, loss_reduction="sum")
    processor = GradientProcessor(projection_dim=rank)
    batches = allocate_batches(lengths, budget)
    collect_gradients(model, data, processor, config, batches=batches)
    return Path(config.partial_run_path)  # where it stays until a build is finished


def logging(folder, lengths, scratch):
    model = load_model(folder)
    documents, budget = load_documents(folder, lengths)
    collect(model, documents[:8], documents[:8], scratch / "warm", RANK, budget)
    found = []
    took = seconds(
        lambda: found.append(collect(model, documents, documents, scratch / "all", RANK, budget))
    )
    tell_logging(documents, took, folder_mb(found[0]))


def opened(found, rank, **options):
    GradientProcessor(projection_dim=rank).save(found)
    return Attributor(found, **options)


def search(folder, passages, scratch):
    model = load_model(folder)
    documents, budget = load_documents(folder, "equal")
    found = collect(model, documents[:8], documents[:8], scratch / "some", SEARCH_RANK, budget)
    widths = json.loads((found / "info.json").read_text())["grad_sizes"]
    attributor = opened(found, SEARCH_RANK)
    attributor.grads = {name: torch.randn(passages, int(width)) for name, width in widths.items()}
    attributor.N = passages
    figures = {}
    for count in (1, TOGETHER):
        queries = {name: torch.randn(count, int(width)) for name, width in widths.items()}
        attributor.search(queries, 10)
        took = min(seconds(lambda q=queries: attributor.search(q, 10)) for _ in range(5))
        figures[f"pairs_per_s_{count}"] = count * passages / took
    tell(dims=sum(map(int, widths.values())), **figures)


def unpadded(task):
    lengths = task[:, 2].sum(axis=1)
    return tuple(
        [row[part, :length].tolist() for row, length in zip(task, lengths, strict=True)]
        for part in (0, 1)
    )


def lds(folder, scratch):
    model = load_model(folder)
    documents, queries = load_task(folder)
    store = collect(model, *unpadded(documents), scratch / "documents", SEARCH_RANK, 1024)
    asked = collect(model, *unpadded(queries), scratch / "queries", SEARCH_RANK, 1024)
    attributor = opened(store, SEARCH_RANK, unit_norm=True)
    sizes = json.loads((asked / "info.json").read_text())["grad_sizes"]
    rows = np.array(load_gradients(asked), dtype=np.float32)
    gradients = {
        name: torch.from_numpy(rows[:, low:high].copy())
        for name, (low, high) in column_offsets(sizes).items()
    }
    values, order = attributor.search(gradients, None)
    scores = torch.zeros(len(queries), len(documents)).scatter(1, order, values.float())
    np.save(folder / "scores-bergson.npy", scores.numpy())
    tell()


def main():
    folder, what, of = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        if what == "logging":
            logging(folder, of, Path(scratch))
        elif what == "search":
            search(folder, int(of), Path(scratch))
        else:
            lds(folder / "lds", Path(scratch))


main()
