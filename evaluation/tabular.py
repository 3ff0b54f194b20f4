"""Tables that come inside scikit-learn: a classification and a regression, by small networks."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.digits import Classifier, DigitsBatch, DigitsTask

TUMOURS = 2  # classes


class TumourTask(DigitsTask):
    """Breast cancer of Wisconsin: 569 tumours, 30 measures each, benign or malignant."""

    outputs_width = TUMOURS

    @cached_property
    def _data(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows in random order ``[M, 30]``, true labels and labels with noise ``[M]``."""
        from sklearn.datasets import load_breast_cancer

        features, true, draw = _shuffled(load_breast_cancer, self.settings.data_seed)
        flipped = draw.random(len(true)) < self.settings.noise
        noisy = np.where(flipped, TUMOURS - 1 - true, true)
        return torch.tensor(features).float(), torch.tensor(true), torch.tensor(noisy)

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
        return {**super()._inputs(subsets, seeds), "task": "tumours"}


class Regressor(Classifier):
    """A module of one output with half the squared error of each example."""

    def batch(self, examples: Sequence[tuple[Tensor, float]]) -> DigitsBatch:
        """Stacked."""
        return DigitsBatch(
            torch.stack([row for row, _ in examples]),
            torch.tensor([value for _, value in examples], dtype=torch.float32),
        )

    def losses(self, batch: DigitsBatch) -> Tensor:
        """``(f - y)² / 2``, ``[B]``."""
        return (self.model(batch.images)[..., 0] - batch.labels).square() / 2

    def measurements(self, batch: DigitsBatch) -> Tensor:
        """The loss; lower is better."""
        return self.losses(batch)


class DiabetesTask(DigitsTask):
    """Diabetes: 442 patients, 10 measures each, and how far the disease went in a year.

    Values are in standard deviations; ``noise`` is the share of training values that are drawn
    from other patients.
    """

    outputs_width = 1

    @cached_property
    def _data(self) -> tuple[Tensor, Tensor, Tensor]:
        """All rows in random order ``[M, 10]``, true values and values with noise ``[M]``."""
        from sklearn.datasets import load_diabetes

        features, true, draw = _shuffled(load_diabetes, self.settings.data_seed)
        true = (true - true.mean()) / true.std()
        wrong = draw.random(len(true)) < self.settings.noise
        noisy = np.where(wrong, true[draw.permutation(len(true))], true)
        return (
            torch.tensor(features).float(),
            torch.tensor(true).float(),
            torch.tensor(noisy).float(),
        )

    def as_task(self, module: nn.Module) -> Classifier:
        """With the squared error."""
        return Regressor(module)

    def summed_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Half the squared error, summed."""
        return (outputs[..., 0] - labels).square().sum() / 2

    def measured(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Minus half the squared error."""
        return -(outputs[..., 0] - labels).square() / 2

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
        return {**super()._inputs(subsets, seeds), "task": "diabetes"}


def _shuffled(load: Any, seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Standardised features and targets in random order, and the generator after that."""
    features, targets = load(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(features))
    return features[order], targets[order], draw
