"""Influences of hits in parts: tokens of the passage, tokens of the response, layers.

One forward and one backward pass over the passages that are returned, each of them once, and one
over the query (`influence.explain`). The passages' tokens are made again from the stored documents;
that they are those of the index is checked against what the index says of each row.
"""

from collections.abc import Sequence

import torch

from influence.breakdown import by_kind, by_layer
from influence.encoder import GradientEncoder
from influence.errors import IndexCorrupt
from influence.explain import Explanation, explain_passages, explain_query
from influence.measurement import EncodedQuery, Query
from influence.store import IndexReader, StoredPassage
from influence.tokens import Passage, TokenSequence, document_passages
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
    passages = _Passages(encoder, reader, texts)
    sequences = [passages.tokens(reader.passage(row)) for row in rows]
    of_passages = explain_passages(encoder, sequences, encoded.vector)
    stored = torch.from_numpy(reader.vectors(rows) * reader.norms[rows, None])
    of_responses = explain_query(encoder, query, encoded, stored)
    layers = [layer.name for layer in encoder.basis.layers]
    return {
        row: (_tokens(passage), _explanation(passage, response, layers))
        for row, passage, response in zip(rows, of_passages, of_responses, strict=True)
    }


class _Passages:
    """The tokens of passages, made from the stored documents as the indexer made them."""

    def __init__(self, encoder: GradientEncoder, reader: IndexReader, texts: Texts) -> None:
        self._tokenizer = encoder.loaded.tokenizer
        self._max_length = reader.manifest.settings.max_length
        self._texts = texts
        self._cut: dict[str, dict[int, Passage]] = {}  # passages of one document are common

    def tokens(self, stored: StoredPassage) -> TokenSequence:
        made = self._document(stored.document_id).get(stored.number)
        if made is None or (made.start, made.end, sum(made.tokens.targets)) != (
            stored.start,
            stored.end,
            stored.target_tokens,
        ):
            raise IndexCorrupt(
                f"The tokens of passage {stored.id} are not those that were indexed; the index was "
                "written by an earlier version of Whence, or with another version of the "
                "tokenizer's library. Build it again, or ask without explain."
            )
        return made.tokens

    def _document(self, document_id: str) -> dict[int, Passage]:
        if document_id not in self._cut:
            document = self._texts.stored(document_id)
            passages = document_passages(document, self._tokenizer, max_length=self._max_length)
            self._cut[document_id] = {passage.number: passage for passage in passages}
        return self._cut[document_id]


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
