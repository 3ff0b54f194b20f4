"""dattri-llm: capture with LoGra projections of both factors, written to disk."""

import tempfile
from pathlib import Path

from dattri_llm import GradientStorageManager, HookManager, HookManagerConfig, OffloadCallback
from workload import (
    BATCH,
    RANK,
    arguments,
    by_length,
    folder_mb,
    load_documents,
    load_model,
    padded,
    seconds,
    tell_logging,
)  # fmt: skip


def main():
    folder, what, lengths = arguments()
    assert what == "logging"
    model = load_model(folder)
    documents, budget = load_documents(folder, lengths)
    projection = {"proj_dim": RANK, "proj_max_batch_size": BATCH, "style": "logra"}
    with tempfile.TemporaryDirectory() as scratch:
        store = GradientStorageManager(scratch)
        manager = HookManager(
            model,
            config=HookManagerConfig(
                linear_io=[r".*self_attn.*", r".*mlp.*"],
                projection_kwargs={"__default__": projection},
            ),
            callbacks=[OffloadCallback(offload_interval=1, file_manager=store)],
        )

        def log():
            with manager.collect():
                for batch in by_length(documents, budget):
                    ids, labels, mask = padded([documents[i] for i in batch])
                    model(
                        input_ids=ids, attention_mask=mask, labels=labels, use_cache=False
                    ).loss.backward()
                    model.zero_grad(set_to_none=True)

        took = seconds(log)
        tell_logging(documents, took, folder_mb(Path(scratch)))


main()
