"""Logging while training: the bits of the training, and each example's gradient by autograd."""

import copy
import json
import warnings

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import Trainer, TrainingArguments

from indexer.logger import Logger
from indexer.second_moments import write_second_moments
from indexer.trainer_callback import LoggerCallback
from indexer.training_log import TrainingLog
from indexer.training_record import read_record, second_moments_of
from influence.errors import BuildConflict, InvalidInput

LENGTH, BATCH = 10, 4


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 400, (3 * BATCH, LENGTH), generator=generator)
    labels = ids.clone()
    for number, row in enumerate(labels):  # so that examples have different numbers of targets
        row[: number % 4] = -100
    return ids, labels


def _batches(rows):
    ids, labels = rows
    for start in range(0, len(ids), BATCH):
        some = slice(start, start + BATCH)
        yield list(range(start, start + BATCH)), {"input_ids": ids[some], "labels": labels[some]}


def _train(model, rows, log=None, *, optimizer=None, loss=None):
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=1e-3)
    states = []
    for ids, batch in _batches(rows):
        states.append(copy.deepcopy(model.state_dict()))
        value = model(**batch).loss if loss is None else loss(model, batch)
        value.backward()
        if log is not None:
            log(ids, batch)
        optimizer.step()
        optimizer.zero_grad()
    return states


def _autograd_rows(model, states, rows, basis):
    """Gradients of each example's summed loss at the state before its step, one at a time."""
    found = []
    for state, (_, batch) in zip(states, _batches(rows), strict=True):
        twin = copy.deepcopy(model).double()
        twin.load_state_dict(state)
        twin.train()
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            logits = twin(input_ids=ids[None]).logits[0, :-1].double()
            loss = torch.nn.functional.cross_entropy(
                logits, labels[1:], ignore_index=-100, reduction="sum"
            )
            weights = [twin.get_submodule(x.name).weight for x in basis.layers]
            parts = torch.autograd.grad(loss, weights)
            found.append(
                torch.cat(
                    [
                        (x.p_out.double() @ g @ x.p_in.double().T).flatten()
                        for x, g in zip(basis.layers, parts, strict=True)
                    ]
                )
            )
    return basis.sketch.forward(torch.stack(found).float())


def test_training_has_the_same_bits_with_and_without_the_logger(new_llama, rows, tmp_path):
    plain, logged = new_llama(), new_llama()
    plain.train(), logged.train()
    _train(plain, rows)
    with Logger(logged, tmp_path / "log", rank=4) as log:
        _train(logged, rows, log)
    for (name, a), b in zip(plain.named_parameters(), logged.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not any(module._forward_hooks for module in logged.modules())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_are_the_gradients_of_each_examples_summed_loss(
    checkpointing, new_llama, rows, tmp_path
):
    model = new_llama()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    with Logger(model, tmp_path / "log", rank=4, dims=512) as log:
        states = _train(model, rows, log)
    found = TrainingLog.open(tmp_path / "log")
    assert found.ids == [str(i) for i in range(12)]
    assert found.steps.tolist() == [1] * 4 + [2] * 4 + [3] * 4
    want = _autograd_rows(new_llama(), states, rows, found.basis)
    # float32 products against float64.
    assert_close(
        torch.from_numpy(found.vectors), want, rtol=1e-3, atol=1e-4 * want.abs().max().item()
    )


def _sum_of_losses(model, batch):
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=-100, reduction="sum"
    )


def test_a_summed_loss_gives_the_rows_of_a_mean(new_llama, rows, tmp_path):
    """SGD that does not move, so that both see the same weights."""
    mean, summed = new_llama(), new_llama()
    with Logger(mean, tmp_path / "mean", rank=4) as log:
        _train(mean, rows, log, optimizer=torch.optim.SGD(mean.parameters(), lr=0.0))
    with Logger(summed, tmp_path / "sum", rank=4) as log:
        for ids, batch in _batches(rows):
            _sum_of_losses(summed, batch).backward()
            log(ids, batch, denominator=1)
    a, b = (TrainingLog.open(tmp_path / name).vectors for name in ("mean", "sum"))
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


def test_mixed_precision_is_logged_within_its_rounding(new_llama, rows, tmp_path):
    exact, mixed = new_llama(), new_llama()
    for model, name in ((exact, "exact"), (mixed, "mixed")):
        with Logger(model, tmp_path / name, rank=4) as log:
            for ids, batch in _batches(rows):
                with torch.autocast("cpu", torch.bfloat16, enabled=name == "mixed"):
                    loss = model(**batch).loss
                loss.backward()
                log(ids, batch)
    a, b = (torch.from_numpy(TrainingLog.open(tmp_path / n).vectors) for n in ("exact", "mixed"))
    # bfloat16 has 8 bits: 2⁻⁸ a product, through some dozen of them.
    assert torch.cosine_similarity(a, b).min() > 0.99


@pytest.mark.parametrize("accumulation", [1, 3])
def test_the_trainer_logs_what_a_raw_loop_logs(accumulation, new_llama, tokenizer, rows, tmp_path):
    ids, labels = rows
    data = [
        {"input_ids": i, "labels": t, "document_id": n}
        for n, (i, t) in enumerate(zip(ids, labels, strict=True))
    ]
    model = new_llama()
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=accumulation,
        num_train_epochs=1,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=0.0,
        logging_steps=1,
        save_steps=1,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
    )
    log = Logger(model, tmp_path / "trainer", rank=4, accumulation=accumulation)
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[LoggerCallback(log)])
    trainer.train()
    raw = new_llama()
    raw.train()
    # The Trainer's optimiser is the fused one, and it averages a step's loss over all its targets.
    optimizer = torch.optim.AdamW(raw.parameters(), lr=1e-3, weight_decay=0.0, fused=True)
    of_step = int((labels[:, 1:] != -100).sum()) if accumulation == 3 else None
    with Logger(raw, tmp_path / "raw", rank=4, accumulation=accumulation) as log:
        for number, (names, batch) in enumerate(_batches(rows), start=1):
            raw(**batch, num_items_in_batch=of_step).loss.backward()
            log(names, batch, denominator=of_step)
            if number % accumulation == 0:
                optimizer.step()
                optimizer.zero_grad()
    a, b = TrainingLog.open(tmp_path / "trainer"), TrainingLog.open(tmp_path / "raw")
    assert a.ids == b.ids
    assert a.steps.tolist() == b.steps.tolist()
    assert np.array_equal(a.vectors, b.vectors)
    record = read_record(tmp_path / "run")
    assert record.optimizer.preconditioned
    assert record.steps == 3 // accumulation
    order = (tmp_path / "run" / "data_order.jsonl").read_text().splitlines()
    assert [json.loads(line)["steps"][0] for line in order] == list(range(1, record.steps + 1))


def test_second_moments_are_adams(new_llama, rows, tmp_path):
    from safetensors.torch import load_file

    model = new_llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    _train(model, rows, optimizer=optimizer)
    write_second_moments(model, optimizer, tmp_path / "c")
    found = load_file(second_moments_of(tmp_path / "c"))
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name], optimizer.state[parameter]["exp_avg_sq"])
    plain = torch.optim.SGD(model.parameters(), lr=0.1)
    assert write_second_moments(model, plain, tmp_path / "d") is None


def test_what_cannot_be_logged_is_refused_in_a_sentence(new_llama, rows, tmp_path):
    model = new_llama()
    ids, batch = next(_batches(rows))
    with Logger(model, tmp_path / "log", rank=4) as log:
        with pytest.raises(InvalidInput, match="No gradient arrived"):
            log(ids, batch)
        model(**batch).loss.backward()
        with pytest.raises(InvalidInput, match="3 ids for 4 examples"):
            log(ids[:3], batch)
    with pytest.raises(BuildConflict, match="another training"):
        Logger(model, tmp_path / "log")


def test_examples_without_a_finite_gradient_are_named(new_llama, rows, tmp_path, caplog):
    model = new_llama()
    ids, batch = next(_batches(rows))
    with Logger(model, tmp_path / "log", rank=4) as log:
        (model(**batch).loss * torch.inf).backward()
        log(ids, batch)
    assert "gradient not finite: 0, 1, 2, 3" in caplog.text
    assert TrainingLog.open(tmp_path / "log").ids == []


def test_lightning_logs_what_a_raw_loop_logs(new_llama, rows, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning's own imports
        import lightning.pytorch as lightning

        from indexer.lightning_callback import LightningLogger

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = new_llama()

        def training_step(self, batch, _):
            return self.model(input_ids=batch["input_ids"], labels=batch["labels"]).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-3)

    ids, labels = rows
    data = [
        {"input_ids": i, "labels": t, "document_id": n}
        for n, (i, t) in enumerate(zip(ids, labels, strict=True))
    ]
    module = Module()
    log = Logger(module.model, tmp_path / "lightning", rank=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[LightningLogger(log)],
        )
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=BATCH))
    raw = new_llama()
    raw.train()
    with Logger(raw, tmp_path / "raw", rank=4) as log:
        _train(raw, rows, log)
    a, b = TrainingLog.open(tmp_path / "lightning"), TrainingLog.open(tmp_path / "raw")
    assert a.ids == b.ids
    assert a.steps.tolist() == b.steps.tolist()
    assert np.array_equal(a.vectors, b.vectors)


def test_processes_under_ddp_log_their_own_examples(new_llama, rows, tmp_path, start_in_child):
    """Two processes, each with half of every batch; weights move by the mean of both."""
    start, end = start_in_child
    ids, labels = rows

    def work(rank):
        def run():
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{tmp_path}/store", rank=rank, world_size=2
            )
            model = torch.nn.parallel.DistributedDataParallel(new_llama())
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            with Logger(model.module, tmp_path / f"log{rank}", rank=4) as log:
                for first in range(0, len(ids), BATCH):
                    own = slice(first + 2 * rank, first + 2 * rank + 2)
                    batch = {"input_ids": ids[own], "labels": labels[own]}
                    model(**batch).loss.backward()
                    log(range(own.start, own.stop), batch)
                    optimizer.step()
                    optimizer.zero_grad()
            torch.distributed.destroy_process_group()

        return run

    for child in [start(work(rank)) for rank in range(2)]:
        assert end(*child) == (0, "")
    alone = new_llama()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    with Logger(alone, tmp_path / "alone", rank=4) as log:
        for first in range(0, len(ids), BATCH):
            for rank in range(2):
                own = slice(first + 2 * rank, first + 2 * rank + 2)
                batch = {"input_ids": ids[own], "labels": labels[own]}
                (alone(**batch).loss / 2).backward()
                terms = 2 * int((batch["labels"][:, 1:] != -100).sum())
                log(range(own.start, own.stop), batch, denominator=terms)
            optimizer.step()
            optimizer.zero_grad()
    want = TrainingLog.open(tmp_path / "alone")
    rows_of = dict(zip(want.ids, want.vectors, strict=True))
    for rank in range(2):
        found = TrainingLog.open(tmp_path / f"log{rank}")
        assert len(found.ids) == 6
        for name, vector in zip(found.ids, found.vectors, strict=True):
            scale = np.abs(rows_of[name]).max()
            np.testing.assert_allclose(vector, rows_of[name], rtol=1e-3, atol=1e-4 * scale)
