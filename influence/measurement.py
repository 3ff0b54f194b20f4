"""What is explained of an answer: a number ``f``, and the gradient with which it meets the index.

With ``L = -log p`` of the explained tokens of a response, and ``L'`` that of an alternative,

    loss       f = L
    log_prob   f = -L
    margin     f = log p - log(1 - p) = -L - log(1 - exp(-L))
    contrast   f = L' - L

A loss is better when it is lower, the others when they are higher. Stored vectors hold ``∇L(z)``,
and training on ``z`` moves against it, so a query holds ``∇f`` with its sign turned to make every
positive score mean: training on the passage made ``f`` better.

Each ``f`` is a function of summed losses alone, so its gradient is a weighted sum of theirs,

    ∇f = Σ_s (∂f/∂L_s) ∇L_s,

and one pass over the sequences serves every measurement. It also shows that loss, log_prob and
margin of one response have parallel gradients: their relative influences are equal, only the
influences differ, for the margin by the factor ``1/(1 - p)``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from influence.documents import Message
from influence.encoder import GradientEncoder
from influence.errors import InvalidInput
from influence.tokens import TokenSequence, query_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# float32 losses do not tell a probability from 1 beyond this.
_CERTAIN = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Measurement:
    """A number that is explained.

    Attributes:
        name: How people ask for it.
        value: ``f`` from summed losses ``[S]``, in nats; differentiable.
        higher_is_better: Whether a better answer has a higher ``f``.
        needs_alternative: Whether there are two sequences, response and alternative, or one.
    """

    name: str
    value: Callable[[Tensor], Tensor]
    higher_is_better: bool = True
    needs_alternative: bool = False

    def weights(self, losses: Tensor) -> Tensor:
        """What each sequence's loss gradient counts in the query's: ``[S]`` float64 -> ``[S]``."""
        with torch.enable_grad():
            leaf = losses.detach().double().requires_grad_()
            (slope,) = torch.autograd.grad(self.value(leaf), leaf)
        return -slope if self.higher_is_better else slope


def _margin(losses: Tensor) -> Tensor:
    loss = losses[0]
    # Straight through: the value stays finite where p rounds to 1, and the slope stays that of it.
    loss = loss + (_CERTAIN - loss.detach()).clamp(min=0)
    return -loss - torch.log(-torch.expm1(-loss))


MEASUREMENTS = {
    measurement.name: measurement
    for measurement in (
        Measurement("loss", lambda losses: losses[0], higher_is_better=False),
        Measurement("log_prob", lambda losses: -losses[0]),
        Measurement("margin", _margin),
        Measurement("contrast", lambda losses: losses[1] - losses[0], needs_alternative=True),
    )
}


@dataclass(frozen=True)
class Query:
    """What was asked and answered, and what of it is explained.

    Attributes:
        measurement: ``f``.
        sequences: The response; with an alternative, that second. Targets are the explained tokens.
    """

    measurement: Measurement
    sequences: tuple[TokenSequence, ...]

    @classmethod
    def of(
        cls,
        prompt: str,
        response: str,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        max_length: int,
        measurement: str = "loss",
        span: tuple[int, int] | None = None,
        alternative: str | None = None,
        context: Sequence[Message] = (),
    ) -> "Query":
        """From texts.

        Args:
            prompt: What was asked.
            response: The answer to explain.
            tokenizer: The model's own.
            max_length: The model's context, in tokens.
            measurement: One of `MEASUREMENTS`.
            span: Characters [start, end) of the response to explain; all of it when None.
            alternative: For ``contrast``, the response rather than which this one was given. With a
                span it must be the response with nothing but the span replaced, and what stands in
                its place is what the span is compared with.
            context: What was said before the prompt.

        Raises:
            InvalidInput: An unknown measurement, an alternative where none belongs or none where
                one does, one that equals the response or differs outside the span, or what
                `query_tokens` refuses.
            QueryTooLong: More than ``max_length`` tokens.
        """
        chosen = MEASUREMENTS.get(measurement)
        if chosen is None:
            raise InvalidInput(
                f"{measurement!r} is no measurement; choose one of {', '.join(MEASUREMENTS)}."
            )
        read = partial(query_tokens, prompt, max_length=max_length, context=context)
        sequences = [read(response, tokenizer, span=span)]
        if chosen.needs_alternative:
            if alternative is None:
                raise InvalidInput(
                    f"The measurement {measurement} compares the response with another one, and "
                    "none was given; send an alternative."
                )
            other = _replaced_span(response, alternative, span)
            sequences.append(read(alternative, tokenizer, span=other))
        elif alternative is not None:
            raise InvalidInput(
                f"The measurement {measurement} has no use for an alternative; choose contrast, "
                "or leave the alternative out."
            )
        return cls(chosen, tuple(sequences))


def _replaced_span(
    response: str, alternative: str, span: tuple[int, int] | None
) -> tuple[int, int] | None:
    """Where in the alternative stands what replaces the span of the response."""
    if alternative == response:
        raise InvalidInput("The alternative is the response itself; send a different one.")
    if span is None:
        return None
    before, after = response[: span[0]], response[span[1] :]
    start, end = len(before), len(alternative) - len(after)
    if not (alternative.startswith(before) and alternative.endswith(after) and start < end):
        raise InvalidInput(
            f"The alternative differs from the response outside the span {span[0]} to {span[1]}, "
            "or has nothing in its place; replace those characters only, or leave the span out."
        )
    return start, end


@dataclass(frozen=True)
class EncodedQuery:
    """A query as it meets the index.

    Attributes:
        vector: Before normalisation, ``[D]`` float32; its inner product with a passage's is the
            influence on ``f``, positive where training on the passage made ``f`` better.
        value: ``f``, in nats.
        weights: What the loss gradient of each sequence counts in the vector, ``[S]`` float64.
        losses: Of each sequence, summed over its explained tokens, in nats, ``[S]`` float32.
        target_tokens: Explained tokens of each sequence, ``[S]``.
    """

    vector: Tensor
    value: float
    weights: Tensor
    losses: Tensor
    target_tokens: Tensor


def encode_queries(encoder: GradientEncoder, queries: Sequence[Query]) -> list[EncodedQuery]:
    """Encode queries, all their sequences in one pass of the model."""
    encoded = encoder.encode([sequence for query in queries for sequence in query.sequences])
    found = []
    first = 0
    for query in queries:
        rows = slice(first, first + len(query.sequences))
        losses = encoded.losses[rows]
        weights = query.measurement.weights(losses)
        found.append(
            EncodedQuery(
                vector=weights.to(encoded.vectors) @ encoded.vectors[rows],
                value=float(query.measurement.value(losses.double())),
                weights=weights,
                losses=losses,
                target_tokens=encoded.target_tokens[rows],
            )
        )
        first = rows.stop
    return found
