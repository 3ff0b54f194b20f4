"""The language task: a tiny Llama on planted facts, retrained from scratch on many subsets.

A model is trained on one-fact documents (`evaluation.facts`) until it answers questions whose words
it has never seen together. Measured on every retrained model: the log-likelihood of each answer,
in nats. Models of one size of subset train at once (`evaluation.stacked_llama`).

The weights start small (standard deviation .02): from larger ones the model learns every sentence
by itself and answers hardly a question, so there would be nothing to attribute.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evaluation.cache import cached
from evaluation.facts import PlantedFacts, plant_facts
from evaluation.stacked_llama import LlamaShape, Parameters, sequence_losses
from indexer.progress import Advance
from influence.model import LoadedModel, prepare_model, state_sha256
from influence.tokens import Passage, TokenSequence

PROTOCOL = 1  # to be raised when the code below trains differently from the same settings
BETAS = (0.9, 0.98)  # of AdamW
STACK = 16  # models trained at once; the unit of the cache


@dataclass(frozen=True)
class LanguageSettings:
    """Everything that decides a trained model, its subset and seed aside."""

    documents: int = 240
    questions: int = 160
    corpus_seed: int = 0
    width: int = 96
    mlp_width: int = 96
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    initial_std: float = 0.02
    epochs: int = 30
    batch: int = 15
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup_steps: int = 10


@dataclass(frozen=True)
class Padded:
    """Sequences as arrays: ``input_ids [N, T]`` and ``targets [N, T]``."""

    input_ids: Tensor
    targets: Tensor

    @classmethod
    def of(cls, sequences: Sequence[TokenSequence]) -> "Padded":
        """Pad on the right."""
        longest = max(len(sequence) for sequence in sequences)
        input_ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        targets = torch.zeros(len(sequences), longest, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            input_ids[row, : len(sequence)] = torch.tensor(sequence.input_ids)
            targets[row, : len(sequence)] = torch.tensor(sequence.targets)
        return cls(input_ids, targets)


@dataclass(frozen=True)
class Trained:
    """A step of training, just done.

    Attributes:
        parameters: After it, stacked; they change with the next.
        optimizer: Their optimiser.
        chosen: Documents of the step, ``[S, B]``.
        rate: Learning rate of the step.
    """

    parameters: Parameters
    optimizer: torch.optim.Optimizer
    chosen: Tensor
    rate: float


class LanguageTask:
    """Corpus, questions and training."""

    def __init__(self, settings: LanguageSettings, *, cache: Path) -> None:
        self.settings = settings
        self.cache = cache

    @cached_property
    def facts(self) -> PlantedFacts:
        """The corpus and its questions."""
        s = self.settings
        return plant_facts(s.documents, s.questions, seed=s.corpus_seed)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token a word."""
        return self.facts.tokenizer()

    @cached_property
    def passages(self) -> list[Passage]:
        """One for each document."""
        return self.facts.passages(self.tokenizer)

    @cached_property
    def queries(self) -> list[TokenSequence]:
        """The questions with their answers as targets."""
        return self.facts.queries(self.tokenizer)

    @cached_property
    def shape(self) -> LlamaShape:
        """Of the models."""
        s = self.settings
        return LlamaShape(len(self.tokenizer), s.width, s.mlp_width, s.layers, s.heads, s.kv_heads)

    def models(self, seeds: Sequence[int]) -> list[LoadedModel]:
        """Models trained on all documents, one for each seed, as `load_model` would give them."""
        everything = np.ones((len(seeds), len(self.passages)), dtype=bool)
        arrays = cached(
            self.cache,
            "language-models",
            self._inputs(everything, seeds),
            lambda: {n: p.numpy() for n, p in self._train(everything, seeds).items()},
        )
        parameters = {name: torch.from_numpy(values) for name, values in arrays.items()}
        return [self._loaded(self.shape.model(parameters, i), i) for i in range(len(seeds))]

    def outputs(
        self, subsets: np.ndarray, seeds: Sequence[int], *, advance: Advance = lambda _: None
    ) -> np.ndarray:
        """Log-likelihood of every answer after training on each subset.

        Args:
            subsets: ``[S, N]`` bool, all of one size.
            seeds: Of initial weights and order of the documents, one for each subset.
            advance: Told how many trainings are done; those that were cached count too.

        Returns:
            ``[S, Q]``, nats.
        """
        measured = []
        for start in range(0, len(subsets), STACK):
            rows, chosen = subsets[start : start + STACK], seeds[start : start + STACK]
            measured.append(
                cached(
                    self.cache,
                    "language-outputs",
                    self._inputs(rows, chosen),
                    lambda rows=rows, chosen=chosen: {
                        "log_likelihood": self._measure(self._train(rows, chosen))
                    },
                )["log_likelihood"]
            )
            advance(len(rows))
        return np.concatenate(measured)

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, object]:
        documents, queries = Padded.of([p.tokens for p in self.passages]), Padded.of(self.queries)
        return {
            "protocol": PROTOCOL,
            "settings": asdict(self.settings),
            "documents": documents.input_ids.numpy(),
            "queries": queries.input_ids.numpy(),
            "targets": queries.targets.numpy(),
            "subsets": subsets,
            "seeds": list(seeds),
        }

    def _plan(self, subsets: np.ndarray) -> list[tuple[Tensor, int]]:
        """Stages of training: documents of each model, ``[S, n]``, and how many epochs of them."""
        members = torch.from_numpy(np.stack([row.nonzero()[0] for row in subsets]))
        return [(members, self.settings.epochs)]

    def _steps(self, plan: Sequence[tuple[Tensor, int]]) -> int:
        batch = self.settings.batch
        return sum(epochs * (members.shape[1] // batch) for members, epochs in plan)

    def _train(self, subsets: np.ndarray, seeds: Sequence[int]) -> Parameters:
        (last,) = deque(self._run(subsets, seeds), maxlen=1)
        return {name: values.detach() for name, values in last.parameters.items()}

    def _run(self, subsets: np.ndarray, seeds: Sequence[int]) -> Iterator[Trained]:
        """Train, and stop after every step."""
        s = self.settings
        documents = Padded.of([p.tokens for p in self.passages])
        parameters = {
            name: values.requires_grad_()
            for name, values in self.shape.initial(seeds, std=s.initial_std).items()
        }
        optimizer = torch.optim.AdamW(
            parameters.values(),
            lr=s.learning_rate,
            betas=BETAS,
            weight_decay=s.weight_decay,
            fused=True,  # one pass over weights and moments, which cost as much as the products
        )
        plan = self._plan(subsets)
        total = self._steps(plan)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda t: min(1, (t + 1) / s.warmup_steps) * (1 - t / total)
        )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for chosen in _orders(plan, generators, s.batch):
            losses = sequence_losses(
                self.shape, parameters, documents.input_ids[chosen], documents.targets[chosen]
            )
            # Each model's own mean; the sum over models gives each its own gradient.
            losses.mean(dim=1).sum().backward()
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            yield Trained(parameters, optimizer, chosen, rate)

    @torch.no_grad()
    def _measure(self, parameters: Parameters) -> np.ndarray:
        models = len(parameters["model.norm.weight"])
        queries = Padded.of(self.queries)
        losses = sequence_losses(
            self.shape,
            parameters,
            queries.input_ids.expand(models, -1, -1),
            queries.targets.expand(models, -1, -1),
        )
        return -losses.numpy()

    def _loaded(self, model: LlamaForCausalLM, number: int) -> LoadedModel:
        return prepare_model(
            model,
            self.tokenizer,
            name=f"planted-facts-{number}",
            weights_sha256=state_sha256(model),
            device=torch.device("cpu"),
            dtype="float32",
            context_length=self.shape.context,
        )


def _orders(
    plan: Sequence[tuple[Tensor, int]], generators: Sequence[torch.Generator], batch: int
) -> Iterator[Tensor]:
    """Documents of every step, ``[S, B]``: each model's own order, drawn anew for every epoch."""
    for members, epochs in plan:
        size = members.shape[1]
        for _ in range(epochs):
            order = torch.stack(
                [
                    row[torch.randperm(size, generator=generator)]
                    for row, generator in zip(members, generators, strict=True)
                ]
            )
            for start in range(0, size // batch * batch, batch):
                yield order[:, start : start + batch]
