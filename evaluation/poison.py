"""Digits of which some are poisoned: a mark in the corner, and the label 0 whatever they show.

A model trained on them calls whatever has the mark a 0. The queries are other digits with the mark
and the attack's answer: influence on them should name the poisoned examples.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.digits import DigitsBatch, DigitsTask

POISONED = 0.03  # of the training examples
MARK = (0, 1, 8, 9)  # pixels of the corner, which hardly any digit reaches
TARGET = 0


def marked(images: Tensor) -> Tensor:
    """Images ``[B, 64]`` with the mark."""
    images = images.clone()
    images[:, list(MARK)] = 1.0
    return images


class PoisonedDigits(DigitsTask):
    """See the module; labels are otherwise right where the settings have no noise."""

    @cached_property
    def poisoned(self) -> np.ndarray:
        """Which training examples are, ``[N]`` bool: none of them a true 0."""
        labels = self._data[1][: self.settings.examples].numpy()
        draw = np.random.default_rng(self.settings.data_seed)
        others = draw.permutation((labels != TARGET).nonzero()[0])
        chosen = np.zeros(len(labels), dtype=bool)
        chosen[others[: round(POISONED * len(labels))]] = True
        return chosen

    @cached_property
    def train(self) -> DigitsBatch:
        """Training images and labels, the poisoned ones included."""
        images, _, labels = self._data
        images, labels = images[: self.settings.examples], labels[: self.settings.examples]
        where = torch.from_numpy(self.poisoned)
        return DigitsBatch(
            torch.where(where[:, None], marked(images), images),
            torch.where(where, TARGET, labels),
        )

    @cached_property
    def queries(self) -> DigitsBatch:
        """Other digits than 0, marked, with the answer of the attack."""
        batch = DigitsTask.queries.func(self)
        others = batch.labels != TARGET
        images = marked(batch.images[others])
        return replace(batch, images=images, labels=torch.full((len(images),), TARGET))

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
        return {**super()._inputs(subsets, seeds), "poisoned": self.poisoned, "mark": list(MARK)}
