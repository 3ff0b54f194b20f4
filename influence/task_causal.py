"""The task of a causal language model: token sequences, and the loss of their target tokens.

Sequences of a batch are padded on the right. Attention of a causal model never looks right, so
padding changes no real token, and as it carries no loss its output gradients are exactly zero: a
passage has the same vector whatever batch it travels in. Padding on the left does the same by means
of an attention mask and position ids, for models that want it so.

The vocabulary is met in chunks (`influence.loss`). In some cases the model itself makes whole
logits: where its head is attributed, so that the head runs as the module that is watched; and where
its logits are not what `OutputHead` makes of its last hidden states, or the model is spread over
devices or sharded.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from influence.capture import frozen
from influence.errors import NumericalError
from influence.layers import output_head
from influence.loss import OutputHead, WholeLogits, token_losses
from influence.model import LoadedModel
from influence.tokens import TokenSequence

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Padded sequences on a device.

    Attributes:
        input_ids: ``[B, T]``; 0 at padding.
        lengths: Real tokens of each sequence, ``[B]``.
        rows: For each target, its sequence, ``[n]``.
        columns: For each target, the position of the token *before* it, which predicts it, ``[n]``.
        padding: The side on which shorter sequences are padded.
    """

    input_ids: Tensor
    lengths: Tensor
    rows: Tensor
    columns: Tensor
    padding: Literal["right", "left"] = "right"

    @classmethod
    def of(
        cls,
        sequences: Sequence[TokenSequence],
        device: torch.device,
        *,
        padding: Literal["right", "left"] = "right",
    ) -> "Batch":
        """Pad and list the targets."""
        longest = max(len(sequence.input_ids) for sequence in sequences)
        input_ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        rows, columns = [], []
        for row, sequence in enumerate(sequences):
            start = 0 if padding == "right" else longest - len(sequence.input_ids)
            stop = start + len(sequence.input_ids)
            input_ids[row, start:stop] = torch.tensor(sequence.input_ids)
            positions = [start + t - 1 for t, target in enumerate(sequence.targets) if target]
            rows += [row] * len(positions)
            columns += positions
        lengths = torch.tensor([len(sequence.input_ids) for sequence in sequences])
        return cls(
            input_ids.to(device),
            lengths.to(device),
            torch.tensor(rows, dtype=torch.long, device=device),
            torch.tensor(columns, dtype=torch.long, device=device),
            padding,
        )

    @property
    def size(self) -> int:
        """B."""
        return len(self.input_ids)

    @property
    def targets(self) -> Tensor:
        """The token ids that carry loss, ``[n]``."""
        return self.input_ids[self.rows, self.columns + 1]

    @property
    def target_counts(self) -> Tensor:
        """Targets of each sequence, ``[B]``."""
        return torch.bincount(self.rows, minlength=self.size)

    @property
    def real_tokens(self) -> Tensor:
        """True where there is a token, False at padding, ``[B, T]``."""
        place = torch.arange(self.input_ids.shape[1], device=self.lengths.device)
        if self.padding == "right":
            return place < self.lengths[:, None]
        return place >= self.input_ids.shape[1] - self.lengths[:, None]

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """`real_tokens`, as a `TaskBatch` gives them."""
        return (self.real_tokens,)

    @property
    def model_inputs(self) -> dict[str, Any]:
        """What the model is called with."""
        inputs: dict[str, Any] = {"input_ids": self.input_ids, "use_cache": False}
        if self.padding == "left":
            mask = self.real_tokens.long()
            inputs["attention_mask"] = mask
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
        return inputs


class LanguageModelLoss:
    """A causal language model as a task (`influence.task.Task`).

    Args:
        loaded: The model. A compiled one or one with PEFT adapters will do.
        padding: The side on which batches are padded.

    Raises:
        NumericalError: The model gives losses that are not finite on an ordinary input.
    """

    padding: Literal["right", "left"] = "right"

    def __init__(self, loaded: LoadedModel, *, padding: Literal["right", "left"] = "right") -> None:
        self.loaded = loaded
        self.padding = padding
        self.trunk: Any = trunk_of(self.model)
        self.head: OutputHead | None = self._checked_head()

    @property
    def model(self) -> Any:
        """The model itself, where a compiled one was given."""
        return getattr(self.loaded.model, "_orig_mod", self.loaded.model)

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.loaded.device

    @property
    def product_dtype(self) -> torch.dtype:
        """The model's."""
        return self.loaded.product_dtype

    def batch(self, examples: Sequence[TokenSequence]) -> Batch:
        """Token sequences on the model's device."""
        return Batch.of(examples, self.device, padding=self.padding)

    def size(self, example: TokenSequence) -> int:
        """Tokens."""
        return len(example.input_ids)

    def losses(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of each sequence, summed over its targets, nats, ``[B]``."""
        per_token = self.token_losses(batch)
        return per_token.new_zeros(batch.size).index_add(0, batch.rows, per_token)

    def measurements(self, batch: Batch) -> Tensor:
        """The loss; other measurements are functions of it (`influence.measurement`)."""
        return self.losses(batch)

    def token_losses(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every target of the batch, ``[n]``, in nats."""
        if self.head is None or _is_watched(output_head(self.model)):
            with self.loaded.autocast():
                logits = self.model(**batch.model_inputs).logits[batch.rows, batch.columns]
            logits = logits.float()
            labels = self.labels(batch, logits, WholeLogits())
            return cross_entropy(logits, labels, reduction="none")
        with self.loaded.autocast():
            output = self.trunk(**batch.model_inputs, return_dict=True)
        hidden = output.last_hidden_state[batch.rows, batch.columns]
        return token_losses(hidden, self.labels(batch, hidden, self.head), self.head)

    def labels(self, batch: Batch, hidden: Tensor, head: OutputHead | WholeLogits) -> Tensor:
        """The token ids whose losses count, ``[n]``: the batch's own.

        Args:
            batch: The sequences.
            hidden: What ``head`` makes logits of, a row for each target, ``[n, …]``.
            head: ``head.logits(hidden[rows])`` is ``[n, V]`` float32.
        """
        return batch.targets

    def _checked_head(self) -> OutputHead | None:
        """The chunked head, where its losses are those of the model's own logits; else None.

        An architecture that does something unknown between its last hidden state and its logits
        would otherwise be attributed wrongly without a word.

        Raises:
            NumericalError: The model's losses are not even finite.
        """
        embedding = self.model.get_input_embeddings()
        ids = torch.arange(2, 10, device=self.device)[None] % embedding.num_embeddings
        sequence = TokenSequence(ids[0].tolist(), [t > 0 for t in range(8)], [(-1, -1)] * 8)
        batch = Batch.of([sequence], self.device)
        with frozen(self.model), torch.no_grad():
            self.head = None
            expected = self.token_losses(batch)
            if not torch.isfinite(expected).all():
                raise NumericalError(
                    f"The model {self.loaded.name} gives losses that are not finite on an ordinary "
                    "input. Check that its weights are finite, or use --dtype float32."
                )
            head = OutputHead.find(self.model, dtype=self.product_dtype)
            if head is None or self.trunk is None:
                log.warning(
                    "%s has no plain output head, or not on one device; its whole logits are used, "
                    "which needs more memory",
                    type(self.model).__name__,
                )
                return None
            self.head = head
            got = self.token_losses(batch)
        # bfloat16 keeps 8 bits, and logits of tens are off by about 0.1; a missing scale or cap
        # is off by far more. In float32 only the order of the sums differs.
        tolerance = 0.3 if self.loaded.dtype == "bfloat16" else 1e-3
        if not torch.allclose(got, expected, atol=tolerance, rtol=tolerance):
            log.warning(
                "%s does something of its own between its last hidden state and its logits (a "
                "loss of %.4f against %.4f nats); its whole logits are used, which needs more "
                "memory",
                type(self.model).__name__,
                float(got[0]),
                float(expected[0]),
            )
            return None
        return head


def trunk_of(model: Any) -> Any:
    """The model below its output head; below PEFT adapters that are part of its layers, too."""
    get_base_model = getattr(model, "get_base_model", None)
    inner = get_base_model() if callable(get_base_model) else model
    trunk = getattr(inner, "base_model", None)
    return None if trunk is inner else trunk


def _is_watched(head: Any) -> bool:
    return head is not None and bool(head._forward_hooks or head._forward_pre_hooks)
