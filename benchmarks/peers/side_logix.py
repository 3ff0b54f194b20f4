"""LogIX: LoGra with random projections, gradients written to disk; and `compute_influence_all`."""

import os
import tempfile
from pathlib import Path

import logix
import torch
from logix.config import LoRAConfig
from torch import nn
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


def prepared(model, rank, project):
    run = logix.init(project=project, config=None)
    run.set_lora_config(LoRAConfig(init="random", rank=rank))
    run.watch(model, type_filter=[nn.Linear], name_filter=["self_attn", "mlp"])
    run.add_lora()
    return run


def log(run, model, documents):
    for number, ids in enumerate(documents.split(BATCH)):
        names = [f"{number}-{i}" for i in range(len(ids))]
        with run(data_id=names):
            model.zero_grad()
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            nn.functional.cross_entropy(
                logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
            ).backward()
    run.finalize()


def main():
    folder, what = arguments()
    model, documents = load(folder)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        if what == "logging":
            run = prepared(model, RANK, "logged")
            run.setup({"grad": ["log"]})
            run.save(True)
            took = seconds(lambda: log(run, model, documents))
            size = sum(p.stat().st_size for p in Path(scratch).rglob("*") if p.is_file())
            tell(
                tokens_per_s=documents.numel() / took,
                bytes_a_passage=size / len(documents),
                peak_mb=peak_mb(),
            )
            return
        run = prepared(model, SEARCH_RANK, "searched")
        names = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.endswith("logix_lora_B")
        ]
        width = SEARCH_RANK**2
        names = names or [str(i) for i in range(56)]

        def logs(count):
            values = {n: {"grad": torch.randn(count, width)} for n in names}
            return [str(i) for i in range(count)], values

        loader = [logs(500) for _ in range(SEARCHED // 500)]
        figures = {}
        for count in (1, TOGETHER):
            query = logs(count)
            took = min(
                seconds(
                    lambda q=query: run.influence.compute_influence_all(
                        q, loader, precondition=False
                    )
                )
                for _ in range(3)
            )
            figures[f"pairs_per_s_{count}"] = count * SEARCHED / took
        tell(dims=width * len(names), **figures)


main()
