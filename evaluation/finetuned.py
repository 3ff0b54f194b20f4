"""LDS of a model that is fine-tuned on blocks of text, such as GPT-2 on WikiText-2.

A configuration fixes everything; `docs/configurations/gpt2-wikitext.json` is the protocol that
Kronfluence's evaluation follows (Grosse et al. 2023, Bae et al. 2024): WikiText-2-raw in blocks of
512 tokens (4,656 of them, and 481 of the validation split as queries), GPT-2 trained for 3 epochs
of batches of 8 by AdamW at a constant 3e-5 with a decay of .01 and no dropout, 100 subsets of one
half with 5 trainings each, measured by the loss of each query.

Every training starts from the same weights; its seed decides the order of the blocks alone. Each is
cached by itself, so a run that was cut off goes on after its last training.
"""

import copy
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch.nn.functional import cross_entropy

from evaluation.cache import cached
from evaluation.lds import half_subsets
from evaluation.subject import Subject
from evaluation.tail_patch import log_likelihoods
from evaluation.trial import MODEL_SEED, Trial, every_second
from indexer.progress import Advance, Reporter
from influence.encoder import LanguageModelLoss
from influence.errors import CorpusError
from influence.model import LoadedModel, prepare_model, state_sha256
from influence.tokens import TokenSequence

PROTOCOL = 1  # to be raised when the code below trains differently from the same settings
LINES_TOGETHER = 1000  # blocks are cut within so many lines, as `datasets.map` of the papers does

Positive = Annotated[int, Field(gt=0)]


class FinetuneSettings(BaseModel):
    """Everything that decides the models, and what is measured of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Before the fine-tune: a folder, or a name of transformers.")
    train: Path = Field(description="Text of the examples, a line at a time.")
    queries: Path = Field(description="Text of the queries.")
    block: Positive = 512
    batch: Positive = 8
    epochs: Positive = 3
    learning_rate: float = Field(3e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    models: Positive = Field(1, description="Trained on everything, whose scores are compared.")
    subsets: Positive = 100
    repeats: Positive = Field(5, description="Trainings on each subset.")
    fraction: float = Field(0.5, gt=0, lt=1, description="Of the blocks in each subset.")
    seed: int = Field(0, description="Of the subsets.")

    @classmethod
    def read(cls, path: Path) -> "FinetuneSettings":
        """From a JSON file; relative paths are those from its folder.

        Raises:
            CorpusError: It cannot be read, or is no such configuration.
        """
        try:
            settings = cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise CorpusError(
                f"{path} is no configuration of a fine-tune: {error}. docs/evaluation.md has one."
            ) from error
        places = {name: path.parent / getattr(settings, name) for name in ("train", "queries")}
        return settings.model_copy(update=places)


def read_blocks(path: Path, tokenizer: Any, block: int) -> list[TokenSequence]:
    """Blocks of one length; what is left of every thousand lines is dropped.

    Raises:
        CorpusError: The file cannot be read, or makes no block.
    """
    try:
        lines = path.read_text("utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read: {error}. Give a text file.") from error
    blocks = []
    for start in range(0, len(lines), LINES_TOGETHER):
        texts = [line for line in lines[start : start + LINES_TOGETHER] if line.strip()]
        ids = list(chain.from_iterable(tokenizer(texts)["input_ids"])) if texts else []
        for first in range(0, len(ids) - block + 1, block):
            targets = [False] + [True] * (block - 1)
            cut = ids[first : first + block]
            blocks.append(TokenSequence(cut, targets, [(0, 0)] * block))
    if not blocks:
        raise CorpusError(f"{path} makes no block of {block} tokens. Give more text.")
    return blocks


class FinetunedTask:
    """Blocks, trainings and what is measured of them."""

    def __init__(self, settings: FinetuneSettings, start: LoadedModel, *, cache: Path) -> None:
        """``start`` is the model before the fine-tune, in float32."""
        self.settings = settings
        self.start = start
        self.cache = cache
        self.blocks = read_blocks(settings.train, start.tokenizer, settings.block)
        self.queries = read_blocks(settings.queries, start.tokenizer, settings.block)

    @cached_property
    def _ids(self) -> torch.Tensor:
        return torch.tensor([block.input_ids for block in self.blocks])

    def train(self, subset: np.ndarray, seed: int) -> LoadedModel:
        """The model after the fine-tune on a subset ``[N]`` bool."""
        s = self.settings
        model = copy.deepcopy(self.start.model).eval().requires_grad_(True)  # no dropout
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=s.learning_rate, weight_decay=s.weight_decay
        )
        members = torch.from_numpy(subset.nonzero()[0])
        generator = torch.Generator().manual_seed(seed)
        for _ in range(s.epochs):
            order = members[torch.randperm(len(members), generator=generator)]
            for first in range(0, len(order) - s.batch + 1, s.batch):  # a broken batch is dropped
                ids = self._ids[order[first : first + s.batch]].to(self.start.device)
                logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
                cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
                optimizer.step()
                optimizer.zero_grad()
        return prepare_model(
            model,
            self.start.tokenizer,
            name=f"{self.start.name}-finetuned-{seed}",
            weights_sha256=state_sha256(model),
            device=self.start.device,
            dtype=self.start.dtype,
            context_length=self.start.context_length,
        )

    def outputs(self, subsets: np.ndarray, *, advance: Advance = lambda _: None) -> np.ndarray:
        """Log-likelihood of every query, the mean of ``repeats`` trainings on each subset.

        Args:
            subsets: ``[S, N]`` bool.
            advance: Told how many trainings are done; those that were cached count too.

        Returns:
            ``[S, Q]``, nats.
        """
        s = self.settings
        measured = np.zeros((len(subsets), len(self.queries)))
        for row, subset in enumerate(subsets):
            for seed in range(s.repeats * row, s.repeats * (row + 1)):
                measured[row] += self._output(subset, seed) / s.repeats
                advance(1)
        return measured

    def _output(self, subset: np.ndarray, seed: int) -> np.ndarray:
        inputs = {
            "protocol": PROTOCOL,
            "settings": self.settings.model_dump(
                include={"block", "batch", "epochs", "learning_rate", "weight_decay"}
            ),
            "start": self.start.weights_sha256,
            "blocks": self._ids.numpy(),
            "queries": np.array([query.input_ids for query in self.queries]),
            "subset": subset,
            "seed": seed,
        }

        def measure() -> dict[str, np.ndarray]:
            task = LanguageModelLoss(self.train(subset, seed))
            found = [log_likelihoods(task, [query]) for query in self.queries]
            return {"log_likelihood": torch.cat(found).numpy()}

        return cached(self.cache, "finetuned-output", inputs, measure)["log_likelihood"]


def finetuned_trial(task: FinetunedTask, reporter: Reporter) -> Trial:
    """Train on everything, and retrain on the subsets."""
    s = task.settings
    subsets = half_subsets(len(task.blocks), count=s.subsets, fraction=s.fraction, seed=s.seed)
    with reporter.step("Retraining", total=s.subsets * s.repeats, unit="models") as advance:
        outputs = task.outputs(subsets, advance=advance)
    everything = np.ones(len(task.blocks), dtype=bool)
    subjects: Sequence[Subject] = [
        Subject(
            LanguageModelLoss(task.train(everything, MODEL_SEED + i)), task.blocks, task.queries
        )
        for i in range(s.models)
    ]
    protocol = (
        f"{task.start.name}, fine-tuned for {s.epochs} epochs on {len(task.blocks)} blocks of "
        f"{s.block} tokens of {s.train.name}; {len(task.queries)} blocks of {s.queries.name} as "
        f"queries; {s.subsets} subsets of {s.fraction:g} of the blocks, {s.repeats} models "
        "retrained on each; measured: the log-likelihood of the query."
    )
    reported = every_second(len(task.queries))
    return Trial("finetuned", protocol, tuple(subjects), subsets, outputs, None, reported)
