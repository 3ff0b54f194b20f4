"""LogIX: LoGra with random projections, gradients written to disk; and `compute_influence_all`.

Batches are sorted by length, with its mask over padding. Scores for the LDS use its raw Hessian.
"""

import os
import tempfile
from pathlib import Path

import logix
import numpy as np
import torch
from logix.config import LoRAConfig
from torch import nn
from workload import (
    BATCH,
    RANK,
    SEARCH_RANK,
    TOGETHER,
    arguments,
    by_length,
    folder_mb,
    load_documents,
    load_model,
    load_task,
    padded,
    seconds,
    tell,
    tell_logging,
)  # fmt: skip


def prepared(model, rank, project):
    run = logix.init(project=project, config=None)
    run.set_lora_config(LoRAConfig(init="random", rank=rank))
    run.watch(model, type_filter=[nn.Linear], name_filter=["self_attn", "mlp"])
    run.add_lora()
    return run


def backward(model, ids, labels, mask):
    model.zero_grad()
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    nn.functional.cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    ).backward()


def logging(folder, lengths, scratch):
    model = load_model(folder)
    documents, budget = load_documents(folder, lengths)
    run = prepared(model, RANK, "logged")
    run.setup({"grad": ["log"]})
    run.save(True)

    def log():
        for batch in by_length(documents, budget):
            ids, labels, mask = padded([documents[i] for i in batch])
            with run(data_id=list(map(str, batch)), mask=mask):
                backward(model, ids, labels, mask)
        run.finalize()

    tell_logging(documents, seconds(log), folder_mb(scratch))


def search(folder, passages):
    model = load_model(folder)
    run = prepared(model, SEARCH_RANK, "searched")
    width = SEARCH_RANK**2
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.endswith("logix_lora_B")
    ]

    def logs(count):
        values = {name: {"grad": torch.randn(count, width)} for name in names}
        return [str(i) for i in range(count)], values

    loader = [logs(500) for _ in range(passages // 500)]
    figures = {}
    for count in (1, TOGETHER):
        query = logs(count)
        took = min(
            seconds(
                lambda q=query: run.influence.compute_influence_all(q, loader, precondition=False)
            )
            for _ in range(3)
        )
        figures[f"pairs_per_s_{count}"] = count * passages / took
    tell(dims=width * len(names), **figures)


def lds(folder):
    model = load_model(folder)
    documents, queries = map(torch.from_numpy, load_task(folder))
    run = prepared(model, SEARCH_RANK, "attributed")
    run.setup({"grad": ["log", "covariance"]})
    run.save(True)
    for start in range(0, len(documents), BATCH):
        some = documents[start : start + BATCH]
        names = [str(start + i) for i in range(len(some))]
        with run(data_id=names, mask=some[:, 2]):
            backward(model, *some.unbind(1))
    run.finalize()
    run.eval()
    loader = run.build_log_dataloader(batch_size=64)
    run.setup({"grad": ["log"]})
    with run(data_id=[str(i) for i in range(len(queries))], mask=queries[:, 2]):
        backward(model, *queries.unbind(1))
    found = run.influence.compute_influence_all(run.get_log(), loader, hessian="raw")
    scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
    scores[:, [int(name) for name in found["tgt_ids"]]] = found["influence"].numpy()
    np.save(folder / "scores-logix.npy", scores)
    tell()


def main():
    folder, what, of = arguments()
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        if what == "logging":
            logging(folder, of, Path(scratch))
        elif what == "search":
            search(folder, int(of))
        else:
            lds(folder / "lds")


main()
