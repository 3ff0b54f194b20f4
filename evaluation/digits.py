"""The digits task: a small classifier on scikit-learn's digits, some of them wrongly labelled.

A tenth of the training labels are replaced at random, so that the network has to learn single
examples by heart, and what such an example does to others is what influence must find. Models are
trained many at once by `torch.func.vmap` over stacked parameters. Measured on every retrained
model: the margin ``log p - log(1 - p)`` of the true digit of each query, averaged over several
trainings on the same subset.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from evaluation.cache import cached
from indexer.progress import Advance

PROTOCOL = 1  # to be raised when the code below trains differently from the same settings
CLASSES = 10
STACK = 64  # models trained at once; the unit of the cache

Parameters = dict[str, Tensor]  # name in the module -> [S, *shape]


@dataclass(frozen=True)
class DigitsSettings:
    """Everything that decides a trained model, its subset and seed aside."""

    examples: int = 1000
    queries: int = 400
    noise: float = 0.1
    data_seed: int = 0
    hidden: tuple[int, ...] = (64, 32)
    epochs: int = 30
    batch: int = 50
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-3


@dataclass(frozen=True)
class DigitsBatch:
    """Images ``[B, 64]`` and their labels ``[B]``, as an `influence.task.TaskBatch`."""

    images: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """B."""
        return len(self.images)

    @property
    def target_counts(self) -> Tensor:
        """One label each."""
        return torch.ones(self.size, dtype=torch.long)

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """No sequences."""
        return ()


class Classifier:
    """A module with the cross-entropy of each example, as an `influence.task.Task`.

    An example is a pair of image ``[64]`` and label.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model.eval()
        self.device = torch.device("cpu")
        self.product_dtype = torch.float32

    def batch(self, examples: Sequence[tuple[Tensor, int]]) -> DigitsBatch:
        """Stacked."""
        return DigitsBatch(
            torch.stack([image for image, _ in examples]),
            torch.tensor([label for _, label in examples]),
        )

    def losses(self, batch: DigitsBatch) -> Tensor:
        """``-log p`` of the labels, nats, ``[B]``."""
        return cross_entropy(self.model(batch.images), batch.labels, reduction="none")

    def measurements(self, batch: DigitsBatch) -> Tensor:
        """The margin with its sign turned, ``log(1 - p) - log p``, ``[B]``."""
        return -margins(self.model(batch.images), batch.labels)

    def size(self, example: tuple[Tensor, int]) -> int:
        """1."""
        return 1


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """``log p - log(1 - p)`` of the labels: ``[..., C]``, ``[...]`` -> ``[...]``."""
    wanted = logits.gather(-1, labels[..., None])
    others = logits.masked_fill(
        torch.zeros_like(logits).scatter(-1, labels[..., None], 1) > 0, -1e9
    )
    return wanted.squeeze(-1) - others.logsumexp(dim=-1)


class DigitsTask:
    """Data and training; `evaluation.tabular` and `evaluation.cnn` vary data, network and loss."""

    outputs_width = CLASSES

    def __init__(self, settings: DigitsSettings, *, cache: Path) -> None:
        self.settings = settings
        self.cache = cache

    @cached_property
    def _data(self) -> tuple[Tensor, Tensor, Tensor]:
        """All images in random order ``[M, 64]``, true labels and labels with noise ``[M]``."""
        from sklearn.datasets import load_digits

        images, true = load_digits(return_X_y=True)
        draw = np.random.default_rng(self.settings.data_seed)
        order = draw.permutation(len(images))
        images, true = images[order] / 8.0 - 1.0, true[order]
        flipped = draw.random(len(true)) < self.settings.noise
        noisy = np.where(flipped, (true + draw.integers(1, CLASSES, len(true))) % CLASSES, true)
        return torch.tensor(images).float(), torch.tensor(true), torch.tensor(noisy)

    @cached_property
    def train(self) -> DigitsBatch:
        """Training images and labels, the wrong ones included."""
        images, _, noisy = self._data
        return DigitsBatch(images[: self.settings.examples], noisy[: self.settings.examples])

    @property
    def true_labels(self) -> Tensor:
        """What the training images show, ``[N]``."""
        return self._data[1][: self.settings.examples]

    @cached_property
    def queries(self) -> DigitsBatch:
        """Other images with their true labels."""
        images, true, _ = self._data
        chosen = slice(self.settings.examples, self.settings.examples + self.settings.queries)
        return DigitsBatch(images[chosen], true[chosen])

    def module(self) -> nn.Sequential:
        """The network, untrained."""
        widths = (self.train.images.shape[1], *self.settings.hidden, self.outputs_width)
        layers: list[nn.Module] = []
        for number, width in enumerate(widths[1:]):
            layers += [nn.Linear(widths[number], width), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def models(self, seeds: Sequence[int]) -> list[Classifier]:
        """Trained on all examples, one for each seed."""
        everything = np.ones((len(seeds), len(self.train.images)), dtype=bool)
        arrays = cached(
            self.cache,
            "digits-models",
            self._inputs(everything, seeds),
            lambda: {n: p.numpy() for n, p in self._train(everything, seeds).items()},
        )
        models = []
        for number in range(len(seeds)):
            module = self.module()
            module.load_state_dict({n: torch.from_numpy(p[number]) for n, p in arrays.items()})
            models.append(self.as_task(module))
        return models

    def as_task(self, module: nn.Module) -> "Classifier":
        """A trained network with its loss."""
        return Classifier(module)

    def summed_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Over all examples of all models: ``[S, B, C]`` and ``[S, B]`` -> a number."""
        return cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="sum")

    def measured(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """What is asked of retrained models, higher is better: ``[S, Q, C]`` -> ``[S, Q]``."""
        return margins(outputs, labels)

    def outputs(
        self,
        subsets: np.ndarray,
        seeds: Sequence[Sequence[int]],
        *,
        advance: Advance = lambda _: None,
    ) -> np.ndarray:
        """Margin of every query's true label after training on each subset.

        Args:
            subsets: ``[S, N]`` bool, all of one size.
            seeds: Of the trainings on each subset, the same number for each.
            advance: Told how many trainings are done; those that were cached count too.

        Returns:
            ``[S, Q]``, mean over the trainings of a subset.
        """
        repeats = len(seeds[0])
        rows = np.repeat(subsets, repeats, axis=0)
        flat = [seed for group in seeds for seed in group]
        measured = []
        for start in range(0, len(rows), STACK):
            some, chosen = rows[start : start + STACK], flat[start : start + STACK]
            measured.append(
                cached(
                    self.cache,
                    "digits-outputs",
                    self._inputs(some, chosen),
                    lambda some=some, chosen=chosen: {
                        "margin": self._measure(self._train(some, chosen))
                    },
                )["margin"]
            )
            advance(len(some))
        return np.concatenate(measured).reshape(len(subsets), repeats, -1).mean(axis=1)

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "settings": asdict(self.settings),
            "images": self._data[0].numpy(),
            "labels": self.train.labels.numpy(),
            "subsets": subsets,
            "seeds": list(seeds),
        }

    def _initial(self, seeds: Sequence[int]) -> Parameters:
        stacked: dict[str, list[Tensor]] = {}
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for name, values in self.module().named_parameters():
                drawn = torch.zeros(values.shape)
                if values.dim() >= 2:
                    drawn = torch.randn(values.shape, generator=generator)
                    drawn *= (2 / values[0].numel()) ** 0.5
                stacked.setdefault(name, []).append(drawn)
        return {name: torch.stack(values) for name, values in stacked.items()}

    def _logits(self, module: nn.Module, parameters: Parameters, images: Tensor) -> Tensor:
        """``[S, B, 64]`` -> ``[S, B, C]``."""
        return vmap(lambda p, x: functional_call(module, p, (x,)))(parameters, images)

    def _train(self, subsets: np.ndarray, seeds: Sequence[int]) -> Parameters:
        s = self.settings
        size = int(subsets[0].sum())
        members = torch.from_numpy(np.stack([row.nonzero()[0] for row in subsets]))  # [S, n]
        parameters = {n: p.requires_grad_() for n, p in self._initial(seeds).items()}
        optimizer = torch.optim.SGD(
            parameters.values(),
            lr=s.learning_rate,
            momentum=s.momentum,
            weight_decay=s.weight_decay,
            fused=True,
        )
        per_epoch = size // s.batch
        steps = s.epochs * per_epoch
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1 - t / steps)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        module = self.module()
        for _ in range(s.epochs):
            order = torch.stack(
                [
                    row[torch.randperm(size, generator=generator)]
                    for row, generator in zip(members, generators, strict=True)
                ]
            )
            for start in range(0, per_epoch * s.batch, s.batch):
                chosen = order[:, start : start + s.batch]  # [S, B]
                logits = self._logits(module, parameters, self.train.images[chosen])
                losses = self.summed_loss(logits, self.train.labels[chosen])
                # Each model's own mean; the sum over models gives each its own gradient.
                (losses / s.batch).backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        return {name: values.detach() for name, values in parameters.items()}

    @torch.no_grad()
    def _measure(self, parameters: Parameters) -> np.ndarray:
        models = len(next(iter(parameters.values())))
        images = self.queries.images.expand(models, -1, -1)
        logits = self._logits(self.module(), parameters, images)
        return self.measured(logits, self.queries.labels.expand(models, -1)).numpy()
