"""From a prompt and a response to the passages behind it: model, index, search, confidence.

An engine is synchronous and has no state that a request changes: the same request asked alone gives
the same answer, to the bit, however often and after whatever else it is asked (timings aside).
Asked together with others it goes through matrix products of other shapes, whose sums are rounded
in another order; its vector then differs by the rounding of float32 and by nothing else.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from influence.basis import basis_of
from influence.encoder import GradientEncoder
from influence.errors import IndexUnavailable, InvalidInput
from influence.measurement import EncodedQuery, Query
from influence.model import LoadedModel, load_model
from influence.store import IndexReader, check_built_from
from influence.transfer import local_index
from service.attributor import Serving
from service.batching import Size
from service.encoding import encode_each, query_of
from service.explanation import explain_rows
from service.owners import owner_shares
from service.ranking import Ranked, Ranker
from service.schemas import (
    NOTHING_STANDS_OUT,
    NOTHING_STANDS_OUT_IN_FILTER,
    AttributeRequest,
    AttributeResult,
    DocumentResult,
    IndexFacts,
    IndexReference,
    QueryFacts,
    ServiceInfo,
    Timings,
)
from service.search.choice import open_search
from service.texts import Texts
from service.turns import Turns

_WARM_UP = AttributeRequest(prompt="What is this?", response="A first question.", top_k=1)


class Engine:
    """A model and its index, ready to answer.

    Args:
        reader: The index.
        loaded: The model that it was built from.
        search_memory_bytes: Most memory for vectors and codes (`service.search.choice`).
        search: How to search.
        search_min_recall: Recall@10 below which every row is compared instead.
        max_query_tokens: Most tokens of a query; as many as the model reads when None.
        turns: Of the model, where others have it as well.

    Raises:
        IndexMismatch: The index was built from another model or tokenizer.
        IndexUnavailable: It has no rows, or its vectors do not fit the memory.
    """

    def __init__(
        self,
        reader: IndexReader,
        loaded: LoadedModel,
        *,
        search_memory_bytes: int,
        search: str = "auto",
        search_min_recall: float = 0.98,
        max_query_tokens: int | None = None,
        turns: Turns | None = None,
    ) -> None:
        check_built_from(reader, loaded)
        if len(reader) == 0:
            raise IndexUnavailable(
                f"The index in {reader.index_dir} has no rows. Build it from a corpus with text."
            )
        self.reader = reader
        self.loaded = loaded
        self.turns = turns or Turns()
        self.max_query_tokens = max_query_tokens or loaded.context_length
        self._search_memory_bytes = search_memory_bytes
        self._wanted_search = search
        self._search_min_recall = search_min_recall
        manifest = reader.manifest
        self.encoder = GradientEncoder(loaded, basis_of(reader))
        opened = open_search(
            reader,
            wanted=search,
            memory_bytes=search_memory_bytes,
            min_recall=search_min_recall,
        )
        self.search, self._search_notice = opened.search, opened.notice
        self.ranker = Ranker(reader, self.search)
        self.texts = Texts(reader)
        self._model_name = _shown_name(manifest.model.name)
        self._reference = IndexReference(
            id=reader.index_dir.resolve().name, version=reader.version, exact=self.search.exact
        )
        # Everything but the request that an answer depends on; looked at for every request.
        self.serving = Serving(
            index=self._reference,
            weights_sha256=loaded.weights_sha256,
            tokenizer_sha256=loaded.tokenizer_sha256,
            dtype=loaded.dtype,
            program=version("whence"),
        )

    @classmethod
    def load(
        cls,
        index_dir: Path | str,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        search_memory_bytes: int = 8 * 2**30,
        search: str = "auto",
        search_min_recall: float = 0.98,
        max_query_tokens: int | None = None,
        trust_remote_code: str | None = None,
    ) -> "Engine":
        """Open an index, load its model, and answer a first question to warm both up.

        Args:
            index_dir: The index: a folder, or a URL, which is pulled into the cache first.
            model: Folder or name; the one that the index names by default.
            device: ``auto``, ``cpu``, ``cuda`` …
            dtype: ``float32`` or ``bfloat16``; ``auto`` is that of the index.
            search_memory_bytes: Most memory for vectors and codes (`service.search.choice`).
            search: How to search.
            search_min_recall: Recall@10 below which every row is compared instead.
            max_query_tokens: Most tokens of a query; as many as the model reads when None.
            trust_remote_code: The model, by its name, if its own code may run.

        Raises:
            IndexUnavailable: There is no usable index; see its subclasses.
            ModelUnavailable: The model cannot be loaded.
        """
        reader = IndexReader.open(local_index(index_dir))
        identity = reader.manifest.model
        loaded = load_model(
            identity.name if model is None else model,
            device=device,
            dtype=identity.dtype if dtype == "auto" else dtype,
            trust_remote_code=trust_remote_code,
        )
        engine = cls(
            reader,
            loaded,
            search_memory_bytes=search_memory_bytes,
            search=search,
            search_min_recall=search_min_recall,
            max_query_tokens=max_query_tokens,
        )
        engine.warm_up()
        return engine

    def over(self, reader: IndexReader) -> "Engine":
        """The same model over another version of the index, searched in the same way; not warm.

        Raises:
            IndexMismatch: The version was built from another model or tokenizer.
            IndexUnavailable: It has no rows, or cannot be searched.
        """
        return type(self)(
            reader,
            self.loaded,
            search_memory_bytes=self._search_memory_bytes,
            search=self._wanted_search,
            search_min_recall=self._search_min_recall,
            max_query_tokens=self.max_query_tokens,
            turns=self.turns,
        )

    def warm_up(self) -> None:
        """Answer a first question, so that the first to be asked need not wait."""
        self.attribute(_WARM_UP, request_id="warm-up")

    def read(self, request: AttributeRequest, *, request_id: str) -> "Asked":
        """A request in tokens, ready for a batch; needs the tokenizer and not the model.

        Raises:
            InvalidInput: The request cannot be attributed.
            QueryTooLong: It is too long for the model, or for this service.
        """
        if request.ranking == "influence" and not self.search.ranks_by_influence:
            raise InvalidInput(
                f"This index is searched by {self.search.name}, which ranks by relative influence "
                "only. Ask for the ranking relative."
            )
        query = query_of(request, self.loaded, max_tokens=self.max_query_tokens)
        rows = len(query.sequences)
        longest = max(len(sequence) for sequence in query.sequences)
        if request.explain:  # the hits go through the model as well
            rows += request.top_k * (2 if request.opponents else 1)
            longest = max(longest, self.reader.manifest.settings.max_length)
        return Asked(request, request_id, query, Size(rows, longest))

    def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """Rank the passages that most influenced a response.

        Raises:
            InvalidInput: The request cannot be attributed, or is too long for the model.
            NumericalError: Its gradient is zero or not finite.
        """
        (answer,) = self.attribute_many([self.read(request, request_id=request_id)])
        if isinstance(answer, Exception):
            raise answer
        return answer

    def attribute_many(self, asked: "Sequence[Asked]") -> list[AttributeResult | Exception]:
        """Answer requests together: one pass of the model, one product with the index.

        Returns:
            For each request its answer, or the error that is its own.
        """
        begun = time.perf_counter()
        with self.turns.one():
            encoded = encode_each(self.encoder, [one.query for one in asked])
        with_gradient = time.perf_counter()
        found = [one for one in encoded if not isinstance(one, Exception)]
        requests = [
            one.request
            for one, vector in zip(asked, encoded, strict=True)
            if not isinstance(vector, Exception)
        ]
        vectors = [one.vector.cpu().numpy() for one in found]
        ranked = iter(self.ranker.rank(list(zip(vectors, requests, strict=True))))
        searched = time.perf_counter()
        spent = Timings(
            queue=0.0,
            gradient=1e3 * (with_gradient - begun),
            search=1e3 * (searched - with_gradient),
            fetch=0.0,
        )
        return [
            one if isinstance(one, Exception) else self._answer(request, one, next(ranked), spent)
            for request, one in zip(asked, encoded, strict=True)
        ]

    def _answer(
        self, asked: "Asked", encoded: EncodedQuery, ranked: Ranked, spent: Timings
    ) -> AttributeResult | Exception:
        try:
            return self._found(asked, encoded, ranked, spent)
        except Exception as error:  # noqa: BLE001 - the others of the batch get their answers
            return error

    def _found(
        self, asked: "Asked", encoded: EncodedQuery, ranked: Ranked, spent: Timings
    ) -> AttributeResult:
        begun = time.perf_counter()
        request = asked.request
        query = encoded.vector.cpu().numpy()
        owners = owner_shares(query, self.reader.owners)
        ranked_at = time.perf_counter()
        explained = None
        if request.explain:
            rows = [hit[0] for hit in (*ranked.proponents, *ranked.opponents)]
            with self.turns.one():
                explained = explain_rows(
                    self.encoder, self.reader, self.texts, asked.query, encoded, rows
                )
        explained_at = time.perf_counter()
        proponents = self.texts.hits(ranked.proponents, explained)
        opponents = self.texts.hits(ranked.opponents, explained)
        fetched = time.perf_counter()
        nothing = NOTHING_STANDS_OUT_IN_FILTER if request.filter else NOTHING_STANDS_OUT
        return AttributeResult(
            request_id=asked.request_id,
            model=self._model_name,
            index=self._reference,
            query=QueryFacts(
                tokens=int(encoded.target_tokens[0]),
                loss_nats=float(encoded.losses[0]),
                measurement=request.measurement,
                value=encoded.value,
                stands_out=ranked.stands_out,
                message=None if ranked.stands_out else nothing,
            ),
            proponents=proponents,
            opponents=opponents,
            owners=owners,
            timings_ms=Timings(
                queue=spent.queue,
                gradient=spent.gradient,
                search=spent.search + 1e3 * (ranked_at - begun),
                fetch=1e3 * (fetched - explained_at),
                explain=1e3 * (explained_at - ranked_at) if request.explain else 0.0,
            ),
            cached=False,
        )

    def document(self, document_id: str) -> DocumentResult:
        """A document of the index.

        Raises:
            NotFound: No document of this id.
        """
        return self.texts.document(document_id)

    def info(self) -> ServiceInfo:
        """What is being served."""
        manifest = self.reader.manifest
        return ServiceInfo(
            version=self.serving.program,
            model=self._model_name,
            dtype=self.loaded.dtype,
            context_length=min(self.loaded.context_length, self.max_query_tokens),
            index=IndexFacts(
                **self._reference.model_dump(),
                documents=manifest.corpus.documents,
                passages=len(self.reader),
                owners=sum(1 for name in self.reader.owners.names if name),
                dims=self.reader.dims,
                search=self.search.name,
                search_recall=self.search.recall,
                search_notice=self._search_notice,
                method=manifest.settings.method,
                quality=manifest.quality,
            ),
        )

    def close(self) -> None:
        """End the threads of the search, and let the version be cleared away."""
        self.search.close()
        self.reader.close()


def _shown_name(model: str) -> str:
    """A model's name for people elsewhere: folders of this machine are nothing to them."""
    path = Path(model)
    return path.name if path.is_absolute() or path.is_dir() else model


@dataclass(frozen=True)
class Asked:
    """A request with its tokens, and what it asks of the model."""

    request: AttributeRequest
    request_id: str
    query: Query
    size: Size
