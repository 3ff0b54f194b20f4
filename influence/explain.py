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
from typing import Any

import torch
from torch import Tensor

from influence.encoder import GradientEncoder, run_backward
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
    """Scores of B examples with R vectors, in parts.

    Attributes:
        positions: ``[R, B, T]`` float32; 0 at padding.
        unplaced: ``[R, B]``: what belongs to no position of the sequence, such as the patches of a
            convolution. With it the positions add up to the score.
        layers: ``[R, B, layers]`` float32. They add up to the score as well.
        real: Which positions are no padding, ``[B, T]``. T is 0 where an example is no sequence, or
            more than one, and everything is unplaced.
    """

    positions: Tensor
    unplaced: Tensor
    layers: Tensor
    real: Tensor


class _PartsReceiver:
    """Splits scores as the captured tensors come by; keeps numbers per position and layer only."""

    keeps_positions = True  # of `influence.capture.Receiver`: experts give rows in their places

    def __init__(self, projections: Sequence[LayerProjection], back: Tensor, real: Tensor) -> None:
        self._projections = {p.name: p for p in projections}
        self._number = {p.name: i for i, p in enumerate(projections)}
        self._against: dict[str, Tensor] = {}
        start = 0
        for p in projections:
            block = back[:, start : start + p.coordinates]
            self._against[p.name] = block.reshape(-1, 1, len(p.p_out), len(p.p_in))
            start += p.coordinates
        self.real = real
        self.positions = back.new_zeros(len(back), *real.shape)
        self.unplaced = back.new_zeros(len(back), len(real))
        self.layers = back.new_zeros(len(back), len(real), len(projections))

    def on_input(self, layer: str, x: Tensor) -> Tensor:
        p_in = self._projections[layer].p_in
        with torch.autocast(x.device.type, enabled=False):
            return x.to(p_in.dtype) @ p_in.T

    def on_gradient(self, layer: str, seen: Tensor, g: Tensor) -> None:
        p_out = self._projections[layer].p_out
        with torch.autocast(g.device.type, enabled=False):
            projected = (g.to(p_out.dtype) @ p_out.T).float()  # [B, T, r_out]
            parts = (projected @ self._against[layer] * seen.float()).sum(-1)  # [R, B, T]
        # A layer called twice in a forward pass adds up.
        whole = parts.sum(-1)
        self.layers[:, :, self._number[layer]] += whole
        if parts.shape[1:] == self.real.shape:
            self.positions += parts
        else:
            self.unplaced += whole


def split_scores(
    encoder: GradientEncoder, examples: Sequence[Any], vectors: Tensor, *, measured: bool = False
) -> ScoreParts:
    """Split the score of every example with every vector, in one forward and one backward pass.

    Args:
        encoder: Model and basis.
        examples: B of them; for a causal language model token sequences.
        vectors: Of the other side, before normalisation, ``[R, D]``.
        measured: The examples are queries of their task's own measurement.
    """
    task, basis = encoder.task, encoder.basis
    batch = task.batch(examples)
    is_one_sequence = len(batch.masks) == 1
    receiver = _PartsReceiver(
        basis.projections(task.product_dtype),
        basis.back(vectors.to(basis.device, torch.float32)),
        batch.masks[0] if is_one_sequence else torch.zeros(batch.size, 0, device=basis.device),
    )
    layers = [layer.layer for layer in basis.layers]
    run_backward(task, batch, layers, basis.leaders, receiver, measured=measured)
    return ScoreParts(receiver.positions, receiver.unplaced, receiver.layers, receiver.real.bool())


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
        chosen = [passages[i] for i in group]
        parts = split_scores(encoder, chosen, query[None])
        found |= zip(group, _explanations(chosen, parts)[0], strict=True)
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
    weights = encoded.weights.to(parts.positions)  # [S]
    weighted = ScoreParts(
        parts.positions * weights[:, None],
        parts.unplaced * weights,
        parts.layers * weights[:, None],
        parts.real,
    )
    return [tuple(explanations) for explanations in _explanations(query.sequences, weighted)]


def _batches(sequences: Sequence[TokenSequence], budget: int) -> Iterator[list[int]]:
    """Indices in runs of similar length, rows × longest within the budget."""
    order = sorted(range(len(sequences)), key=lambda i: -len(sequences[i]))
    while order:
        rows = max(1, budget // len(sequences[order[0]]))
        yield order[:rows]
        order = order[rows:]


def _explanations(sequences: Sequence[TokenSequence], parts: ScoreParts) -> list[list[Explanation]]:
    """For each of the R vectors an explanation of each sequence."""
    return [
        [
            _explanation(
                sequence,
                positions[real].double().tolist(),
                elsewhere=float(unplaced),
                layers=layers.double().tolist(),
            )
            for sequence, positions, real, unplaced, layers in zip(
                sequences, of_vector, parts.real, parts.unplaced[r], parts.layers[r], strict=True
            )
        ]
        for r, of_vector in enumerate(parts.positions)
    ]


def _explanation(
    sequence: TokenSequence, positions: list[float], *, elsewhere: float, layers: list[float]
) -> Explanation:
    """Show the part of every real position, ``[T]``, at the token it predicts."""
    tokens: list[TokenPart] = []
    elsewhere += positions[-1]  # predicts nothing
    for part, (start, end) in zip(positions[:-1], sequence.offsets[1:], strict=True):
        if not 0 <= start < end:
            elsewhere += part
        elif tokens and start < tokens[-1].end:  # bytes of one character
            last = tokens.pop()
            tokens.append(TokenPart(last.start, max(end, last.end), last.influence + part))
        else:
            tokens.append(TokenPart(start, end, part))
    return Explanation(tuple(tokens), elsewhere, tuple(layers))
