"""The tasks of transformers classifiers: of texts (BERT and its kin), of images (ViT, ResNet).

The loss of an example is ``-log p(label)``, in nats. What is explained of a query is that loss, or
the margin ``log p - log (1 - p)`` of its label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from influence.errors import InvalidInput
from influence.task_module import ModuleTask, class_loss, class_margin

Measured = Literal["loss", "margin"]
MEASURED = {"loss": class_loss, "margin": class_margin}


@dataclass(frozen=True)
class LabelledTokens:
    """A text in tokens, with its class."""

    input_ids: Sequence[int]
    label: int


@dataclass(frozen=True)
class TextBatch:
    """Padded texts on a device: ``input_ids`` and ``mask``, ``[B, T]``; ``labels``, ``[B]``."""

    input_ids: Tensor
    mask: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """B."""
        return len(self.labels)

    @property
    def target_counts(self) -> Tensor:
        """1 for each text, ``[B]``."""
        return torch.ones_like(self.labels)

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """Where there is a token."""
        return (self.mask,)


class TextClassification:
    """A text classifier of transformers as a task (`influence.task.Task`).

    Args:
        model: Such as `BertForSequenceClassification`, with one logit a class.
        measured: What is explained of a query.
        device: Where the model is; that of its first parameter by default.

    Raises:
        InvalidInput: The model has a single output.
    """

    product_dtype = torch.float32

    def __init__(
        self, model: Any, *, measured: Measured = "loss", device: torch.device | None = None
    ) -> None:
        self.model: Any = getattr(model, "_orig_mod", model)
        self.device = device or next(iter(self.model.parameters())).device
        self._measured = MEASURED[measured]
        classes = getattr(self.model.config, "num_labels", 2)
        if classes < 2:
            raise InvalidInput(
                f"{type(self.model).__name__} has {classes} output, so it is no classifier. Give "
                "its loss with influence.task_module.ModuleTask."
            )

    def batch(self, examples: Sequence[LabelledTokens]) -> TextBatch:
        """Texts on the model's device, padded on the right."""
        longest = max(len(example.input_ids) for example in examples)
        padding = getattr(self.model.config, "pad_token_id", None) or 0
        ids = torch.full((len(examples), longest), padding)
        for row, example in enumerate(examples):
            ids[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        lengths = torch.tensor([len(example.input_ids) for example in examples])
        mask = torch.arange(longest) < lengths[:, None]
        labels = torch.tensor([example.label for example in examples])
        return TextBatch(ids.to(self.device), mask.to(self.device), labels.to(self.device))

    def size(self, example: LabelledTokens) -> int:
        """Tokens."""
        return len(example.input_ids)

    def logits(self, batch: TextBatch) -> Tensor:
        """One a class, ``[B, C]``."""
        return self.model(input_ids=batch.input_ids, attention_mask=batch.mask.long()).logits

    def losses(self, batch: TextBatch) -> Tensor:
        """``-log p(label)`` of each text, ``[B]``."""
        return class_loss(self.logits(batch), batch.labels)

    def measurements(self, batch: TextBatch) -> Tensor:
        """What is explained of each text, ``[B]``."""
        return self._measured(self.logits(batch), batch.labels)


def image_classification(
    model: Any, *, measured: Measured = "loss", device: torch.device | None = None
) -> ModuleTask:
    """An image classifier as a task; an example is ``(pixels [C, H, W], label)``.

    Args:
        model: Of transformers, such as `ViTForImageClassification`, or any module that gives logits
            ``[B, classes]`` for pixels ``[B, C, H, W]``.
        measured: What is explained of a query.
        device: Where the model is; that of its first parameter by default.
    """

    def logits(module: Any, pixels: Tensor) -> Tensor:
        output = module(pixels)
        return output if isinstance(output, Tensor) else output.logits

    explained = MEASURED[measured]
    return ModuleTask(
        model,
        loss=lambda module, batch: class_loss(logits(module, batch[0]), batch[1]),
        measurement=lambda module, batch: explained(logits(module, batch[0]), batch[1]),
        device=device,
    )
