"""From a request to the vector that meets the index.

Two steps, so that several requests can share one pass of the model: `query_of` reads a request by
itself and says what is wrong with it, `encode_each` takes those that are right through the model.
"""

from collections.abc import Sequence

import torch

from influence.documents import Message
from influence.encoder import GradientEncoder
from influence.errors import NumericalError
from influence.measurement import EncodedQuery, Query, encode_queries
from influence.model import LoadedModel
from service.schemas import AttributeRequest


def query_of(request: AttributeRequest, loaded: LoadedModel, *, max_tokens: int) -> Query:
    """What a request asks to be explained, in tokens.

    Args:
        request: The request.
        loaded: The model.
        max_tokens: Most tokens of a sequence, besides what the model reads.

    Raises:
        InvalidInput: It cannot be attributed (`Query.of`).
        QueryTooLong: It is too long.
    """
    return Query.of(
        request.prompt,
        request.response,
        loaded.tokenizer,
        max_length=min(max_tokens, loaded.context_length),
        measurement=request.measurement,
        span=(request.span.start, request.span.end) if request.span else None,
        alternative=request.alternative,
        context=[Message(turn.role, turn.content) for turn in request.context or ()],
    )


def encode_each(
    encoder: GradientEncoder, queries: Sequence[Query]
) -> "list[EncodedQuery | Exception]":
    """Queries in one pass of the model; each is encoded, or has an error of its own.

    A pass that fails as a whole, for want of memory or because of one query, is taken again query
    by query, so that the others have their vectors.
    """
    try:
        encoded = encode_queries(encoder, queries)
    except Exception as error:  # noqa: BLE001 - it is returned, as that of the query alone
        if len(queries) == 1:
            return [error]
        return [one for query in queries for one in encode_each(encoder, [query])]
    return [_checked(one) for one in encoded]


def _checked(encoded: EncodedQuery) -> EncodedQuery | NumericalError:
    if not (torch.isfinite(encoded.vector).all() and torch.isfinite(encoded.losses).all()):
        return NumericalError(
            "The gradient of this answer is not finite, so it cannot be attributed. Serve the "
            "model with --dtype float32."
        )
    if not encoded.vector.any():
        return NumericalError(
            f"The gradient of this answer is zero (its loss is {float(encoded.losses[0])} nats): "
            "no document could have made it more likely. Explain a longer span of the response."
        )
    return encoded
