"""Texts and descriptions of what was found, read from the store."""

import threading
from collections.abc import Iterable, Mapping

from influence.store import IndexReader, StoredDocument
from service.parts import HitExplanation, TokenInfluence
from service.schemas import DocumentResult, Hit, PassageReference

Explained = tuple[tuple[TokenInfluence, ...], HitExplanation]


class Texts:
    """The documents of an index, for several threads."""

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._reading = threading.Lock()  # a Parquet reader is not for two threads at once

    def hits(
        self,
        found: Iterable[tuple[int, float, float, float]],
        explained: Mapping[int, Explained] | None = None,
    ) -> tuple[Hit, ...]:
        """Hits in the order given.

        Args:
            found: Row, influence, relative influence and confidence of each.
            explained: Of each row its tokens and explanation, where they were asked for.
        """
        documents: dict[str, StoredDocument] = {}  # passages of one document are common
        out = []
        for rank, (row, influence, relative_influence, confidence) in enumerate(found, start=1):
            passage = self._reader.passage(row)
            if passage.document_id not in documents:
                documents[passage.document_id] = self.stored(passage.document_id)
            document = documents[passage.document_id]
            tokens, explanation = (None, None) if explained is None else explained[row]
            out.append(
                Hit(
                    rank=rank,
                    document_id=document.id,
                    passage_id=passage.id,
                    influence=influence,
                    relative_influence=relative_influence,
                    confidence=confidence,
                    title=document.title,
                    source=document.source,
                    owner=document.owner,
                    licence=document.licence,
                    url=document.url,
                    text=document.text[passage.start : passage.end],
                    start=passage.start,
                    end=passage.end,
                    tokens=tokens,
                    explanation=explanation,
                )
            )
        return tuple(out)

    def document(self, document_id: str) -> DocumentResult:
        """A document with its passages.

        Raises:
            NotFound: No document of this id.
        """
        stored = self.stored(document_id)
        passages = [self._reader.passage(row) for row in stored.rows]
        return DocumentResult(
            id=stored.id,
            text=stored.text,
            title=stored.title,
            source=stored.source,
            owner=stored.owner,
            licence=stored.licence,
            url=stored.url,
            metadata=dict(stored.metadata),
            passages=tuple(PassageReference(id=p.id, start=p.start, end=p.end) for p in passages),
        )

    def stored(self, document_id: str) -> StoredDocument:
        """A document as the store has it; raises `NotFound`."""
        with self._reading:
            return self._reader.document(document_id)
