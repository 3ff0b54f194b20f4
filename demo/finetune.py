"""A short fine-tune on the demo corpus, so that its records really are training data.

Only the linear layers of the last blocks learn (`demo.tail`), with the very loss that is indexed:
the same tokens (`influence.tokens`), the same sum. The layers that learn are the layers to index
(`demo.settings`): a record has no influence through weights that it never moved.
"""

import itertools
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from demo.cache import fingerprint, new_folder
from demo.settings import FinetuneSettings
from demo.tail import Tail, hidden_below
from indexer.corpus import read_corpus
from indexer.progress import Advance, Reporter
from influence.atomic import file_sha256
from influence.encoder import Batch
from influence.errors import NumericalError
from influence.model import load_model
from influence.tokens import Passage, document_passages

SUMMARY = "finetune.json"
POOL = 64  # passages among which those of similar length are put together


def finetune(
    model_dir: Path,
    corpus: Path,
    out_dir: Path,
    settings: FinetuneSettings | None = None,
    *,
    device: str = "auto",
    reporter: Reporter,
) -> Path:
    """Train the last blocks on the corpus; the same inputs are trained on once only.

    Args:
        model_dir: The model before, a transformers folder.
        corpus: JSON lines of chats.
        out_dir: The new model becomes a folder in it, named after its inputs.
        settings: What is learnt and how.
        device: ``auto``, ``cpu``, ``cuda``.
        reporter: Told how far the work is.

    Raises:
        ModelUnavailable: The folder holds no model.
        CorpusError: A record cannot be read.
        NumericalError: The loss left the finite numbers.
        StorageFull: The folder cannot be written.
    """
    settings = settings or FinetuneSettings()
    inputs = {
        "model": file_sha256(model_dir / "model.safetensors"),
        "corpus": file_sha256(corpus),
        "settings": asdict(settings),
    }
    folder = out_dir / f"finetuned-{fingerprint(inputs)}"
    if folder.is_dir():
        return folder
    loaded = load_model(model_dir, device=device, dtype="float32")
    bf16 = bf16_is_fast(loaded.device)
    passages = [
        passage
        for document in read_corpus(corpus)
        for passage in document_passages(document, loaded.tokenizer, max_length=settings.max_length)
    ]
    tokens = sum(len(passage.tokens) for passage in passages)
    with reporter.step("Reading: frozen layers", total=tokens, unit="tokens") as advance:
        hidden = hidden_below(loaded, passages, settings.blocks, bf16=bf16, advance=advance)
    tail = Tail(loaded, settings.blocks, bf16=bf16)
    plan = plan_batches([len(passage.tokens) for passage in passages], settings)
    total = settings.epochs * tokens
    with reporter.step("Fine-tuning", total=total, unit="tokens") as advance:
        steps = _Steps(plan, passages, hidden)
        losses = train(tail, steps, settings, device=loaded.device, advance=advance)
    summary = {**inputs, "passages": len(passages), "tokens": tokens, "loss_nats": losses}
    reporter.note(
        f"Loss of the records: {losses[0]:.2f} nats a token in the first of {len(losses)} epochs, "
        f"{losses[-1]:.2f} in the last"
    )
    with new_folder(folder) as partial:
        loaded.model.cpu().to(torch.float16).save_pretrained(partial)
        loaded.tokenizer.save_pretrained(partial)
        (partial / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return folder


def bf16_is_fast(device: torch.device) -> bool:
    """Whether matrix products are faster in bfloat16 than in float32 on this device.

    A CPU without instructions for it emulates them, at a seventh of the speed of float32.
    """
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return True


def plan_batches(lengths: Sequence[int], settings: FinetuneSettings) -> list[list[list[int]]]:
    """Which passages make up which batch of which epoch, each passage once an epoch.

    Passages of similar length travel together, but only among a few at a time, so that batches
    differ from epoch to epoch and do not consist of one kind of record.
    """
    rng = random.Random(settings.seed)
    plan = []
    for _ in range(settings.epochs):
        order = rng.sample(range(len(lengths)), len(lengths))
        epoch: list[list[int]] = []
        for start in range(0, len(order), POOL):
            group: list[int] = []
            for i in sorted(order[start : start + POOL], key=lambda i: lengths[i]):
                if group and (len(group) + 1) * lengths[i] > settings.batch_tokens:
                    epoch.append(group)
                    group = []
                group.append(i)
            epoch.append(group)
        rng.shuffle(epoch)
        plan.append(epoch)
    return plan


def train(
    tail: Tail,
    steps: "_Steps",
    settings: FinetuneSettings,
    *,
    device: torch.device,
    advance: Advance,
) -> list[float]:
    """Take one step of AdamW a batch, in the order of the plan.

    Returns:
        The loss of each epoch while it was trained on, in nats a target token.

    Raises:
        NumericalError: The loss left the finite numbers.
    """
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=1,  # an item of the steps is a whole batch
            max_steps=len(steps),
            train_sampling_strategy="sequential",
            learning_rate=settings.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(settings.warmup * len(steps)),
            optim="adamw_torch_fused",
            adam_beta2=0.98,  # a few hundred steps: .999 would remember all of them
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=device.type == "cpu",
            seed=settings.seed,
        )
        trainer = Trainer(
            model=tail,
            args=arguments,
            train_dataset=steps,
            data_collator=_only,
            callbacks=[_Progress(steps, advance)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    means = []
    for first, last in steps.epochs:
        part = tail.losses[first:last]
        mean = sum(float(loss) for loss, _ in part) / sum(targets for _, targets in part)
        means.append(mean)
    if not all(map(math.isfinite, means)):
        raise NumericalError(
            f"The loss of the fine-tune was not finite: {means} nats a token by epoch. Run the "
            "demo again with --device cpu."
        )
    return means


class _Steps(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Item ``n`` is what the tail reads in step ``n``."""

    def __init__(
        self,
        epochs: Sequence[Sequence[Sequence[int]]],
        passages: Sequence[Passage],
        hidden: Sequence[Tensor],
    ) -> None:
        self._groups = [group for epoch in epochs for group in epoch]
        ends = list(itertools.accumulate(len(epoch) for epoch in epochs))
        self.epochs = list(zip([0, *ends], ends, strict=False))  # first and last step of each
        self._passages = passages
        self._hidden = hidden

    def __len__(self) -> int:
        return len(self._groups)

    def tokens(self, step: int) -> int:
        """Real tokens of a step."""
        return sum(len(self._passages[i].tokens) for i in self._groups[step])

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        group = self._groups[step]
        batch = Batch.of([self._passages[i].tokens for i in group], torch.device("cpu"))
        hidden = pad_sequence([self._hidden[i] for i in group], batch_first=True)
        return {
            "hidden": hidden,
            "rows": batch.rows,
            "columns": batch.columns,
            "targets": batch.targets,
        }


def _only(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    (item,) = items
    return item


class _Progress(TrainerCallback):
    """Reports the tokens of every step."""

    def __init__(self, steps: _Steps, advance: Advance) -> None:
        self._steps = steps
        self._advance = advance

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._advance(self._steps.tokens(state.global_step - 1))
