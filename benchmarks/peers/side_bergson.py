"""Bergson: its gradient collector with rank × rank projections, and the Attributor's search."""

import json
import tempfile
from pathlib import Path

import torch
from bergson import Attributor, GradientProcessor, IndexConfig, collect_gradients
from datasets import Dataset
from workload import (
    BATCH,
    RANK,
    SEARCH_RANK,
    SEARCHED,
    TOGETHER,
    arguments,
    load,
    peak_mb,
    seconds,
    tell,
)  # fmt: skip


def collect(model, documents, folder, rank):
    ids = documents.tolist()
    data = Dataset.from_dict({"input_ids": ids, "labels": ids, "length": [len(i) for i in ids]})
    config = IndexConfig(run_path=str(folder), projection_dim=rank, loss_reduction="sum")
    collect_gradients(
        model,
        data,
        GradientProcessor(projection_dim=rank),
        config,
        batches=[list(range(i, i + BATCH)) for i in range(0, len(ids), BATCH)],
    )
    return Path(config.partial_run_path)  # where it stays until a build is finished


def main():
    folder, what = arguments()
    model, documents = load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        collect(model, documents[:BATCH], Path(scratch) / "warm", RANK)
        if what == "logging":
            written = []
            out = Path(scratch) / "index"
            took = seconds(lambda: written.append(collect(model, documents, out, RANK)))
            size = sum(p.stat().st_size for p in written[0].rglob("*") if p.is_file())
            tell(
                tokens_per_s=documents.numel() / took,
                bytes_a_passage=size / len(documents),
                peak_mb=peak_mb(),
            )
            return
        found = collect(model, documents[:BATCH], Path(scratch) / "small", SEARCH_RANK)
        GradientProcessor(projection_dim=SEARCH_RANK).save(found)
        widths = json.loads((found / "info.json").read_text())["grad_sizes"]
        attributor = Attributor(found)
        attributor.grads = {
            name: torch.randn(SEARCHED, int(width)) for name, width in widths.items()
        }
        attributor.N = SEARCHED
        figures = {}
        for count in (1, TOGETHER):
            queries = {name: torch.randn(count, int(width)) for name, width in widths.items()}
            attributor.search(queries, 10)
            took = min(seconds(lambda q=queries: attributor.search(q, 10)) for _ in range(5))
            figures[f"pairs_per_s_{count}"] = count * SEARCHED / took
        tell(dims=sum(map(int, widths.values())), **figures)


main()
