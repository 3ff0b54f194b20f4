"""Texts and descriptions of what was found, read from the store."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from influence.store import IndexReader, StoredDocument
from service.parts import HitExplanation, TokenInfluence
from service.schemas import DocumentResult, Hit, PassageReference

Explained = tuple[tuple[TokenInfluence, ...], HitExplanation]

_KEPT_CHARACTERS = 2**24  # of the documents that were read last


class Texts:
    """The documents of an index, for several threads.

    Reading one costs its whole row group, and the same ones come back for many questions, so those
    that were read last are kept.
    """

    def __init__(self, reader: IndexReader) -> None:
        self._reader = reader
        self._reading = threading.Lock()  # a Parquet reader is not for two threads at once
        self._kept: OrderedDict[str, StoredDocument] = OrderedDict()  # used longest ago first
        self._kept_characters = 0

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
        out = []
        for rank, (row, influence, relative_influence, confidence) in enumerate(found, start=1):
            passage = self._reader.passage(row)
            document = self.stored(passage.document_id)
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
            document = self._kept.get(document_id)
            if document is None:
                document = self._kept[document_id] = self._reader.document(document_id)
                self._kept_characters += len(document.text)
                while self._kept_characters > _KEPT_CHARACTERS:
                    _, dropped = self._kept.popitem(last=False)
                    self._kept_characters -= len(dropped.text)
            else:
                self._kept.move_to_end(document_id)
            return document
