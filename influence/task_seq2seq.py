"""The task of an encoder-decoder model, such as T5: a source, and the loss of its target tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

IGNORED = -100  # label at padding


@dataclass(frozen=True)
class SequencePair:
    """What the encoder reads, and what the decoder is to say, end-of-sequence token included."""

    source: Sequence[int]
    target: Sequence[int]


@dataclass(frozen=True)
class PairBatch:
    """Padded pairs on a device.

    Attributes:
        source: ``[B, T]``; 0 at padding.
        source_mask: True where there is a token, ``[B, T]``.
        labels: ``[B, T']``; `IGNORED` at padding.
    """

    source: Tensor
    source_mask: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """B."""
        return len(self.source)

    @property
    def target_counts(self) -> Tensor:
        """Target tokens of each pair, ``[B]``."""
        return (self.labels != IGNORED).sum(dim=1)

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """Of the encoder's positions and of the decoder's."""
        return self.source_mask, self.labels != IGNORED


class EncoderDecoderLoss:
    """An encoder-decoder model of transformers as a task (`influence.task.Task`).

    Args:
        model: Such as `T5ForConditionalGeneration`; its own `prepare_decoder_input_ids_from_labels`
            says what the decoder reads.
        device: Where the model is; that of its first parameter by default.
    """

    product_dtype = torch.float32

    def __init__(self, model: Any, *, device: torch.device | None = None) -> None:
        self.model: Any = getattr(model, "_orig_mod", model)
        self.device = device or next(iter(self.model.parameters())).device

    def batch(self, examples: Sequence[SequencePair]) -> PairBatch:
        """Pairs on the model's device, padded on the right."""
        source = _padded([pair.source for pair in examples], 0)
        lengths = torch.tensor([len(pair.source) for pair in examples])
        mask = torch.arange(source.shape[1]) < lengths[:, None]
        labels = _padded([pair.target for pair in examples], IGNORED)
        return PairBatch(source.to(self.device), mask.to(self.device), labels.to(self.device))

    def size(self, example: SequencePair) -> int:
        """Tokens of both sides."""
        return len(example.source) + len(example.target)

    def losses(self, batch: PairBatch) -> Tensor:
        """Negative log-likelihood of each target, summed over its tokens, nats, ``[B]``."""
        read = self.model.prepare_decoder_input_ids_from_labels(batch.labels)
        logits = self.model(
            input_ids=batch.source,
            attention_mask=batch.source_mask.long(),
            decoder_input_ids=read,
            use_cache=False,
        ).logits
        losses = cross_entropy(
            logits.float().transpose(1, 2), batch.labels, ignore_index=IGNORED, reduction="none"
        )
        return losses.sum(dim=1)

    def measurements(self, batch: PairBatch) -> Tensor:
        """The loss."""
        return self.losses(batch)


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
