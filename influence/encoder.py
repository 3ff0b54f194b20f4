"""From token sequences to vectors: one forward and one backward pass of the frozen model.

Sequences of a batch are padded on the right. Attention of a causal model never looks right, so
padding changes no real token, and as it carries no loss its output gradients are exactly zero: a
passage has the same vector whatever batch it travels in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from influence.basis import Basis
from influence.capture import Receiver, capture, frozen, shared_inputs
from influence.errors import ModelUnavailable, NumericalError
from influence.layers import LinearLayer
from influence.loss import OutputHead, token_losses
from influence.model import LoadedModel
from influence.projection import ProjectionReceiver
from influence.tokens import TokenSequence


@dataclass(frozen=True)
class Batch:
    """Padded sequences on a device.

    Attributes:
        input_ids: ``[B, T]``; 0 at padding.
        lengths: Real tokens of each sequence, ``[B]``.
        rows: For each target, its sequence, ``[n]``.
        columns: For each target, the position of the token *before* it, which predicts it, ``[n]``.
    """

    input_ids: Tensor
    lengths: Tensor
    rows: Tensor
    columns: Tensor

    @classmethod
    def of(cls, sequences: Sequence[TokenSequence], device: torch.device) -> "Batch":
        """Pad on the right and list the targets."""
        longest = max(len(sequence.input_ids) for sequence in sequences)
        input_ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        rows, columns = [], []
        for row, sequence in enumerate(sequences):
            input_ids[row, : len(sequence.input_ids)] = torch.tensor(sequence.input_ids)
            positions = [t - 1 for t, target in enumerate(sequence.targets) if target]
            rows += [row] * len(positions)
            columns += positions
        lengths = torch.tensor([len(sequence.input_ids) for sequence in sequences])
        return cls(
            input_ids.to(device),
            lengths.to(device),
            torch.tensor(rows, dtype=torch.long, device=device),
            torch.tensor(columns, dtype=torch.long, device=device),
        )

    @property
    def targets(self) -> Tensor:
        """The token ids that carry loss, ``[n]``."""
        return self.input_ids[self.rows, self.columns + 1]

    @property
    def real_tokens(self) -> Tensor:
        """True where there is a token, False at padding, ``[B, T]``."""
        return (
            torch.arange(self.input_ids.shape[1], device=self.lengths.device)
            < (self.lengths[:, None])
        )


@dataclass(frozen=True)
class Encoded:
    """What one pass gives.

    Attributes:
        vectors: Stored vectors before normalisation, ``[B, D]`` float32; their inner product with
            a query's is the influence, positive for a proponent.
        losses: Negative log-likelihood of each sequence, summed over its targets, in nats, ``[B]``.
        target_tokens: Number of targets of each sequence, ``[B]``.
    """

    vectors: Tensor
    losses: Tensor
    target_tokens: Tensor


class LanguageModelLoss:
    """Token losses of a causal language model, the head applied in chunks."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.trunk: Any = loaded.model.base_model
        self.head = OutputHead.of(loaded.model, dtype=loaded.product_dtype)
        self._check_against_the_model()

    def token_losses(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every target of the batch, ``[n]``, in nats."""
        with self.loaded.autocast():
            output = self.trunk(input_ids=batch.input_ids, use_cache=False, return_dict=True)
            hidden = output.last_hidden_state[batch.rows, batch.columns]
        return token_losses(hidden, batch.targets, self.head)

    def _check_against_the_model(self) -> None:
        """Chunked losses must be those of the model's own logits.

        An architecture that does something unknown between its last hidden state and its logits
        would otherwise be attributed wrongly without a word.

        Raises:
            ModelUnavailable: They are not.
            NumericalError: They are not even finite.
        """
        vocabulary = self.loaded.model.get_input_embeddings().num_embeddings
        ids = torch.arange(2, 10, device=self.loaded.device)[None] % vocabulary
        batch = Batch(
            ids,
            torch.tensor([8], device=ids.device),
            torch.zeros(7, dtype=torch.long, device=ids.device),
            torch.arange(7, device=ids.device),
        )
        with frozen(self.loaded.model), torch.no_grad(), self.loaded.autocast():
            logits = self.loaded.model(input_ids=ids, use_cache=False).logits[0, :7].float()
            expected = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
            got = self.token_losses(batch)
        if not torch.isfinite(expected).all():
            raise NumericalError(
                f"The model {self.loaded.name} gives losses that are not finite on an ordinary "
                "input. Check that its weights are finite, or use --dtype float32."
            )
        # bfloat16 keeps 8 bits, and logits of tens are off by about 0.1; a missing scale or cap
        # is off by far more. In float32 only the order of the sums differs.
        tolerance = 0.3 if self.loaded.dtype == "bfloat16" else 1e-3
        if not torch.allclose(got, expected, atol=tolerance, rtol=tolerance):
            raise ModelUnavailable(
                f"{type(self.loaded.model).__name__} does something between its last hidden state "
                f"and its logits that Whence does not know: losses {got.tolist()} against "
                f"{expected.tolist()}. This architecture is not supported yet; use another model."
            )


def input_leaders(loaded: LoadedModel, layers: Sequence[LinearLayer]) -> dict[str, str]:
    """Which layers of a language model read the same input (`capture.shared_inputs`)."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=loaded.device)
    with frozen(loaded.model), loaded.autocast():
        return shared_inputs(
            loaded.model,
            layers,
            lambda: loaded.model.base_model(input_ids=ids, use_cache=False),
        )


def run_backward(
    loss: LanguageModelLoss,
    batch: Batch,
    layers: Sequence[LinearLayer],
    leaders: dict[str, str],
    receiver: Receiver,
) -> Tensor:
    """One forward and backward pass whose captured tensors go to a receiver.

    Returns:
        The summed loss of each sequence, ``[B]``, detached.
    """
    with capture(loss.loaded.model, layers, receiver, leaders=leaders):
        per_token = loss.token_losses(batch)
        per_sequence = per_token.new_zeros(len(batch.lengths)).index_add(0, batch.rows, per_token)
        per_sequence.sum().backward()
    return per_sequence.detach()


class GradientEncoder:
    """Turns token sequences into vectors of one basis."""

    def __init__(self, loaded: LoadedModel, basis: Basis) -> None:
        self.loaded = loaded
        self.basis = basis.to(loaded.device)
        self.loss = LanguageModelLoss(loaded)
        self._layers = [layer.layer for layer in basis.layers]
        self._projections = self.basis.projections(loaded.product_dtype)

    def coordinates(self, sequences: Sequence[TokenSequence]) -> tuple[Tensor, Tensor]:
        """Projected gradients before any whitening, ``[B, K]``, and losses, ``[B]``."""
        batch = Batch.of(sequences, self.loaded.device)
        receiver = ProjectionReceiver(self._projections, len(sequences), self.loaded.device)
        losses = run_backward(self.loss, batch, self._layers, self.basis.leaders, receiver)
        return receiver.coordinates, losses

    def encode(self, sequences: Sequence[TokenSequence]) -> Encoded:
        """Vectors, losses and target counts of a batch."""
        coordinates, losses = self.coordinates(sequences)
        targets = torch.tensor([sum(s.targets) for s in sequences], device=losses.device)
        return Encoded(self.basis.whitened(coordinates), losses, targets)
