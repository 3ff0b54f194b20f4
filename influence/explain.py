"""Which words of a passage carry its influence, and which words of the answer it bears on.

The gradient of a linear layer is a sum over token positions, ``∇W = Σ_t g_t a_tᵀ``, and everything
from there to a score is linear. So the score splits exactly, with the other side's vector taken
back through whitenings and sketch to each layer's coordinates ``Q̂`` (`Basis.back`):

    score = Σ_t Σ_layers (P_out g_t)ᵀ Q̂ (P_in a_t).

The sum over layers is what position ``t`` contributes, the sum over positions what a layer does.

**What a position's part means.** Training on the passage changes the weights by one outer product a
position: what the layers read there (``a_t``) times how the loss wanted their outputs there changed
(``g_t``). The part of ``t`` is the influence of that change. The state of position ``t`` has seen
the tokens up to ``t`` and predicts token ``t + 1``, so its part is shown at **token t + 1**, the
word that was learnt there. That reads best, since the loss of that word is most of what arrives
at ``t`` (the rest are later losses, through attention), and nothing is lost: the last position
predicts nothing, no gradient arrives there, and its part is zero. A position's part is not the
influence of its word's loss alone, nor what leaving the word out would change.

Parts whose predicted token is no text (templates, prompts of a query, ends of turns) are summed up
as `Explanation.elsewhere`, so an explanation always adds up to its score.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from influence.encoder import Batch, GradientEncoder, run_backward
from influence.measurement import EncodedQuery, Query
from influence.projection import LayerProjection
from influence.tokens import TokenSequence

TOKENS_PER_BATCH = 4096  # rows × longest of one pass, so that memory does not grow with the hits


@dataclass(frozen=True)
class TokenPart:
    """Influence that belongs to the characters ``[start, end)``, in the units of the score."""

    start: int
    end: int
    influence: float


@dataclass(frozen=True)
class Explanation:
    """A score in parts: over the tokens of one text, and over the layers.

    Attributes:
        tokens: Every token with text, in its order; tokens that share a character are one. The
            characters are those of `TokenSequence.offsets`: of `Document.text` for a passage, of
            the response for a query.
        elsewhere: What belongs to no such token.
        layers: The layers' sums over all positions, in the order of the basis.
    """

    tokens: tuple[TokenPart, ...]
    elsewhere: float
    layers: tuple[float, ...]

    @property
    def influence(self) -> float:
        """The score that was split: all tokens and what is elsewhere."""
        return sum(part.influence for part in self.tokens) + self.elsewhere


@dataclass(frozen=True)
class ScoreParts:
    """Scores of B sequences with R vectors, in parts.

    Attributes:
        positions: ``[R, B, T]`` float32; 0 at padding. Its sum over T is the score.
        layers: ``[R, B, layers]`` float32. Its sum over layers is the score, too.
    """

    positions: Tensor
    layers: Tensor


class _PartsReceiver:
    """Splits scores as the captured tensors come by; keeps numbers per position and layer only."""

    def __init__(
        self, projections: Sequence[LayerProjection], back: Tensor, batch: int, length: int
    ) -> None:
        self._projections = {p.name: p for p in projections}
        self._number = {p.name: i for i, p in enumerate(projections)}
        self._against: dict[str, Tensor] = {}
        start = 0
        for p in projections:
            block = back[:, start : start + p.coordinates]
            self._against[p.name] = block.reshape(-1, 1, len(p.p_out), len(p.p_in))
            start += p.coordinates
        self.positions = back.new_zeros(len(back), batch, length)
        self.layers = back.new_zeros(len(back), batch, len(projections))

    def on_input(self, layer: str, x: Tensor) -> Tensor:
        p_in = self._projections[layer].p_in
        with torch.autocast(x.device.type, enabled=False):
            return x.to(p_in.dtype) @ p_in.T

    def on_gradient(self, layer: str, seen: Tensor, g: Tensor) -> None:
        p_out = self._projections[layer].p_out
        with torch.autocast(g.device.type, enabled=False):
            projected = (g.to(p_out.dtype) @ p_out.T).float()  # [B, T, r_out]
            # A layer called twice in a forward pass adds up.
            parts = (projected @ self._against[layer] * seen.float()).sum(-1)  # [R, B, T]
        self.positions += parts
        self.layers[:, :, self._number[layer]] += parts.sum(-1)


def split_scores(
    encoder: GradientEncoder, sequences: Sequence[TokenSequence], vectors: Tensor
) -> ScoreParts:
    """Split the score of every sequence with every vector, in one forward and one backward pass.

    Args:
        encoder: Model and basis.
        sequences: B of them.
        vectors: Of the other side, before normalisation, ``[R, D]``.
    """
    basis = encoder.basis
    batch = Batch.of(sequences, encoder.loaded.device)
    receiver = _PartsReceiver(
        basis.projections(encoder.loaded.product_dtype),
        basis.back(vectors.to(basis.device, torch.float32)),
        *batch.input_ids.shape,
    )
    layers = [layer.layer for layer in basis.layers]
    run_backward(encoder.loss, batch, layers, basis.leaders, receiver)
    return ScoreParts(receiver.positions, receiver.layers)


def explain_passages(
    encoder: GradientEncoder,
    passages: Sequence[TokenSequence],
    query: Tensor,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
) -> list[Explanation]:
    """The influence of each passage on a query, over the passage's tokens.

    Costs one forward and one backward pass over the passages.

    Args:
        encoder: Model and basis of the index.
        passages: As the index has them (`document_passages`).
        query: `EncodedQuery.vector`, ``[D]``.
        tokens_per_batch: Rows × longest row of a batch at most; a longer passage goes alone.
    """
    found: dict[int, Explanation] = {}
    for group in _batches(passages, tokens_per_batch):
        parts = split_scores(encoder, [passages[i] for i in group], query[None])
        for row, i in enumerate(group):
            found[i] = _explanation(passages[i], parts.positions[0, row], parts.layers[0, row])
    return [found[i] for i in range(len(passages))]


def explain_query(
    encoder: GradientEncoder, query: Query, encoded: EncodedQuery, vectors: Tensor
) -> list[tuple[Explanation, ...]]:
    """The influence of each passage on a query, over the query's tokens.

    Costs one forward and one backward pass over the query, however many passages there are.

    Args:
        encoder: Model and basis of the index.
        query: What is explained.
        encoded: The same query, encoded.
        vectors: The passages', before normalisation (stored unit vectors times norms), ``[R, D]``.

    Returns:
        For each passage one explanation of every sequence of the query: of the response, and for a
        contrast of the alternative. Together they add up to the influence of the passage.
    """
    parts = split_scores(encoder, query.sequences, vectors)
    weights = encoded.weights.to(parts.positions)[:, None]
    positions, layers = parts.positions * weights, parts.layers * weights
    return [
        tuple(
            _explanation(sequence, positions[r, s], layers[r, s])
            for s, sequence in enumerate(query.sequences)
        )
        for r in range(len(vectors))
    ]


def _batches(sequences: Sequence[TokenSequence], budget: int) -> Iterator[list[int]]:
    """Indices in runs of similar length, rows × longest within the budget."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while order:
        rows = max(1, budget // len(sequences[order[0]]))
        yield order[:rows]
        order = order[rows:]


def _explanation(sequence: TokenSequence, positions: Tensor, layers: Tensor) -> Explanation:
    """Show every position's part, ``[T]``, at the token it predicts."""
    parts = positions.double().tolist()
    tokens: list[TokenPart] = []
    elsewhere = parts[len(sequence) - 1]  # predicts nothing
    for part, (start, end) in zip(parts, sequence.offsets[1:], strict=False):
        if not 0 <= start < end:
            elsewhere += part
        elif tokens and start < tokens[-1].end:  # bytes of one character
            last = tokens.pop()
            tokens.append(TokenPart(last.start, max(end, last.end), last.influence + part))
        else:
            tokens.append(TokenPart(start, end, part))
    return Explanation(tuple(tokens), elsewhere, tuple(layers.double().tolist()))
