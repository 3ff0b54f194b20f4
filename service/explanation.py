"""Influences of hits in parts: tokens of the passage, tokens of the response, layers.

One forward and one backward pass over the passages that are returned, each of them once, and one
over the query (`influence.explain`). The passages' tokens are made again from the stored documents
(`influence.stored_tokens`).

Where an index follows training (SOURCE), a passage's vector is a sum over checkpoints that are not
here. Then the response alone is split over its tokens, and of a passage everything is elsewhere.
"""

from collections.abc import Sequence

import torch

from influence.breakdown import by_kind, by_layer
from influence.encoder import GradientEncoder
from influence.explain import Explanation, explain_passages, explain_query
from influence.measurement import EncodedQuery, Query
from influence.store import IndexReader
from influence.stored_tokens import StoredTokens
from service.parts import HitExplanation, LayerInfluence, TokenInfluence
from service.texts import Explained, Texts


def explain_rows(
    encoder: GradientEncoder,
    reader: IndexReader,
    texts: Texts,
    query: Query,
    encoded: EncodedQuery,
    rows: Sequence[int],
) -> dict[int, Explained]:
    """The influence of some rows on a query, in parts.

    The parts of a passage come from its gradient as the model gives it now, those of the response
    from the stored vector, which float16 rounds; both sums are the influence within that rounding.

    Args:
        encoder: Model and basis of the index.
        reader: The index.
        texts: Its documents.
        query: What is explained.
        encoded: The same query, encoded.
        rows: Any; one that comes twice is explained once.

    Raises:
        IndexCorrupt: A passage's tokens cannot be made again as they were indexed.
    """
    rows = sorted(set(rows))
    if not rows:
        return {}
    stored = torch.from_numpy(reader.vectors(rows) * reader.norms[rows, None])
    of_responses = explain_query(encoder, query, encoded, stored)
    of_passages = _passages(encoder, reader, texts, encoded, rows, of_responses)
    layers = [layer.name for layer in encoder.basis.layers]
    return {
        row: (_tokens(passage), _explanation(passage, response, layers))
        for row, passage, response in zip(rows, of_passages, of_responses, strict=True)
    }


def _passages(
    encoder: GradientEncoder,
    reader: IndexReader,
    texts: Texts,
    encoded: EncodedQuery,
    rows: Sequence[int],
    of_responses: Sequence[Sequence[Explanation]],
) -> Sequence[Explanation]:
    if reader.manifest.settings.method == "source":
        return [
            Explanation(
                (),
                sum(part.influence for part in response),
                tuple(map(sum, zip(*(part.layers for part in response), strict=True))),
            )
            for response in of_responses
        ]
    max_length = reader.manifest.settings.max_length
    tokens = StoredTokens(texts.stored, encoder.loaded.tokenizer, max_length=max_length)
    sequences = [tokens.of(reader.passage(row)) for row in rows]
    return explain_passages(encoder, sequences, encoded.vector)


def _explanation(
    passage: Explanation, response: Sequence[Explanation], layers: Sequence[str]
) -> HitExplanation:
    parts = by_layer(layers, passage.layers)
    return HitExplanation(
        tokens_elsewhere=passage.elsewhere,
        response=_tokens(response[0]),
        alternative=_tokens(response[1]) if len(response) > 1 else None,
        response_elsewhere=sum(part.elsewhere for part in response),
        kinds=by_kind(parts),
        layers=tuple(
            LayerInfluence(layer=part.layer, kind=part.kind, influence=part.influence)
            for part in parts
        ),
    )


def _tokens(explanation: Explanation) -> tuple[TokenInfluence, ...]:
    return tuple(
        TokenInfluence(start=part.start, end=part.end, influence=part.influence)
        for part in explanation.tokens
    )
