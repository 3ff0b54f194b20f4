"""The task of any torch module with a loss of each example.

    task = ModuleTask(
        model,
        loss=lambda model, batch: cross_entropy(model(batch[0]), batch[1], reduction="none"),
    )

An example is whatever `collate` makes a batch of: by default what a `torch.utils.data.DataLoader`
would take, such as ``(image, label)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

Loss = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Collated:
    """What `collate` made of B examples."""

    content: Any
    size: int
    device: torch.device
    masks: tuple[Tensor, ...] = ()

    @property
    def target_counts(self) -> Tensor:
        """1 for each example, ``[B]``: a module's loss is one term."""
        return torch.ones(self.size, dtype=torch.long, device=self.device)


class ModuleTask:
    """A module as a task (`influence.task.Task`).

    Args:
        model: Any module; its layers must have the examples as the first axis of their inputs.
        loss: ``(model, content of a batch) -> [B]``: the loss of each example by itself, neither
            averaged nor summed over the batch.
        measurement: Likewise, what is explained of a query, lower being better; the loss where it
            is None.
        collate: A list of examples -> the content of a batch, on the CPU.
        device: Where the model is; that of its first parameter by default.
        size: What an example costs, in the units of a batch's budget.
    """

    product_dtype = torch.float32

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        measurement: Loss | None = None,
        collate: Callable[[list[Any]], Any] = default_collate,
        device: torch.device | None = None,
        size: Callable[[Any], int] = lambda example: 1,
    ) -> None:
        self.model: Any = getattr(model, "_orig_mod", model)
        self.device = device or next(iter(self.model.parameters())).device
        self._loss = loss
        self._measurement = measurement or loss
        self._collate = collate
        self._size = size

    def batch(self, examples: Sequence[Any]) -> Collated:
        """Examples on the model's device."""
        return Collated(
            moved(self._collate(list(examples)), self.device), len(examples), self.device
        )

    def size(self, example: Any) -> int:
        """What it costs in a batch."""
        return self._size(example)

    def losses(self, batch: Collated) -> Tensor:
        """The loss of each example, ``[B]``."""
        return self._loss(self.model, batch.content)

    def measurements(self, batch: Collated) -> Tensor:
        """What is explained of each example, ``[B]``."""
        return self._measurement(self.model, batch.content)


def moved(content: Any, device: torch.device) -> Any:
    """Tensors, also in nested tuples, lists and dicts, on a device."""
    if hasattr(content, "to"):  # a tensor, or what a tokenizer gives
        return content.to(device)
    if isinstance(content, dict):
        return {key: moved(value, device) for key, value in content.items()}
    if isinstance(content, tuple | list):
        return type(content)(moved(value, device) for value in content)
    return content


def class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """``-log p(label)`` of each example, nats, ``[B]``."""
    return cross_entropy(logits.float(), labels, reduction="none")


def class_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """``log (1 - p) - log p`` of each example's label, ``[B]``: the margin, its sign turned.

    It tells answers apart whose probability is so near 1 that their loss is flat.
    """
    logits = logits.float()
    wanted = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1)
    return others - wanted
