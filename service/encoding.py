"""From a request to the vector that meets the index.

Two steps, so that several requests can share one pass of the model: `query_of` reads a request by
itself and says what is wrong with it, `checked` looks at what the model made of one.
"""

import torch

from influence.encoder import GradientEncoder
from influence.errors import NumericalError
from influence.measurement import EncodedQuery, Query, encode_queries
from influence.model import LoadedModel
from service.schemas import AttributeRequest


def query_of(request: AttributeRequest, loaded: LoadedModel) -> Query:
    """What a request asks to be explained, in tokens.

    Raises:
        InvalidInput: It cannot be attributed (`Query.of`).
        QueryTooLong: It is longer than the model reads.
    """
    return Query.of(
        request.prompt,
        request.response,
        loaded.tokenizer,
        max_length=loaded.context_length,
        measurement=request.measurement,
        span=(request.span.start, request.span.end) if request.span else None,
        alternative=request.alternative,
    )


def encode_request(encoder: GradientEncoder, query: Query) -> EncodedQuery:
    """One query, in one pass of the model.

    Raises:
        NumericalError: Its gradient is zero or not finite.
    """
    (encoded,) = encode_queries(encoder, [query])
    return checked(encoded)


def checked(encoded: EncodedQuery) -> EncodedQuery:
    """The same, if it has a direction.

    Raises:
        NumericalError: Its gradient is zero or not finite.
    """
    if not (torch.isfinite(encoded.vector).all() and torch.isfinite(encoded.losses).all()):
        raise NumericalError(
            "The gradient of this answer is not finite, so it cannot be attributed. Serve the "
            "model with --dtype float32."
        )
    if not encoded.vector.any():
        raise NumericalError(
            f"The gradient of this answer is zero (its loss is {float(encoded.losses[0])} nats): "
            "no document could have made it more likely. Explain a longer span of the response."
        )
    return encoded
