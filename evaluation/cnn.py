"""The digits by a small convolutional network: layers whose weights serve many positions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from evaluation.digits import CLASSES, DigitsTask

CHANNELS = (8, 16)


class CnnDigits(DigitsTask):
    """Two convolutions and a linear layer on images of 8 by 8."""

    def module(self) -> nn.Sequential:
        """The network, untrained."""
        first, second = CHANNELS
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, first, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(second * 4, CLASSES),
        )

    def _inputs(self, subsets: np.ndarray, seeds: Sequence[int]) -> dict[str, Any]:
        return {**super()._inputs(subsets, seeds), "network": f"cnn {CHANNELS}"}
