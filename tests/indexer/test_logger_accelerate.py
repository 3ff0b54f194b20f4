"""The logger in a loop of accelerate, and what it says of models that FSDP has sharded."""

import warnings

import numpy as np
import pytest
import torch

from indexer.logger import Logger
from indexer.training_log import TrainingLog


def _loader():
    """Three batches of four examples, with different numbers of targets."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number, ids in enumerate(torch.randint(0, 400, (12, 10), generator=generator)):
        labels = ids.clone()
        labels[: number % 4] = -100
        rows.append({"input_ids": ids, "labels": labels, "document_id": number})
    return torch.utils.data.DataLoader(rows, batch_size=4)


@pytest.fixture
def new_accelerator():
    """Accelerate keeps one state for the process, which must not outlive a test."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    def reset():
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    reset()
    yield Accelerator
    reset()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_an_accelerate_loop_logs_what_a_raw_loop_logs(
    precision, new_accelerator, new_llama, tmp_path
):
    """Prepared model, optimiser and loader; the losses of three batches are accumulated."""
    accelerator = new_accelerator(
        cpu=True, mixed_precision=precision, gradient_accumulation_steps=3
    )
    inner = new_llama().train()
    model, optimizer, loader = accelerator.prepare(
        inner,
        torch.optim.AdamW(inner.parameters(), lr=1e-3),
        _loader(),
    )
    with Logger(inner, tmp_path / "accelerate", rank=4, accumulation=3) as log:
        for batch in [*loader, *loader]:  # two epochs, the second with moved weights
            names = batch.pop("document_id")
            with accelerator.accumulate(model):
                accelerator.backward(model(**batch).loss)
                log(names, batch)
                optimizer.step()
                optimizer.zero_grad()
    raw = new_llama().train()
    optimizer = torch.optim.AdamW(raw.parameters(), lr=1e-3)
    with Logger(raw, tmp_path / "raw", rank=4, accumulation=3) as log:
        for number, batch in enumerate([*_loader(), *_loader()], start=1):
            names = batch.pop("document_id")
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = raw(**batch).loss
            (loss / 3).backward()
            log(names, batch)
            if number % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()
    a, b = TrainingLog.open(tmp_path / "accelerate"), TrainingLog.open(tmp_path / "raw")
    assert a.ids == b.ids
    assert a.steps.tolist() == b.steps.tolist() == [1] * 12 + [2] * 12
    assert np.array_equal(a.vectors, b.vectors)


@pytest.mark.parametrize("generation", ["fully_shard", "FullyShardedDataParallel"])
def test_a_model_sharded_by_fsdp_is_refused(generation, new_llama, tmp_path, start_in_child):
    from torch.distributed import fsdp

    start, end = start_in_child
    model = new_llama()

    def work():
        warnings.simplefilter("ignore")  # torch's own, of what it is going to rename
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
        )
        if generation == "fully_shard":
            mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
            sharded = fsdp.fully_shard(model, mesh=mesh)
        else:
            sharded = fsdp.FullyShardedDataParallel(model, device_id=torch.device("cpu"))
        Logger(sharded, tmp_path / "log", rank=4)

    code, said = end(*start(work))
    assert code == 3
    assert said.startswith("InvalidInput: ")
    assert "sharded by FSDP" in said
    assert "Use DDP" in said
    assert not (tmp_path / "log").exists()
