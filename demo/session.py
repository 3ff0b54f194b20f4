"""Model and index together, as the self-check asks them."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from demo.generate import generate_answers
from influence.model import LoadedModel
from influence.store import IndexReader
from service.engine import Engine
from service.schemas import AttributeRequest, AttributeResult, Span


class Session:
    """Answers questions with the model and explains answers with the index.

    Raises:
        IndexMismatch: The index was built from another model.
    """

    def __init__(self, index_dir: Path, loaded: LoadedModel, *, search_memory_bytes: int) -> None:
        self._loaded = loaded
        self._engine = Engine(
            IndexReader.open(index_dir), loaded, search_memory_bytes=search_memory_bytes
        )

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()

    def attribute(
        self, prompt: str, response: str, top_k: int, span: tuple[int, int] | None = None
    ) -> AttributeResult:
        """What the service would answer."""
        part = None if span is None else Span(start=span[0], end=span[1])
        request = AttributeRequest(prompt=prompt, response=response, top_k=top_k, span=part)
        return self._engine.attribute(request, request_id="self-check")

    def generate(self, questions: Sequence[str]) -> list[str]:
        """The model's own answers."""
        return generate_answers(self._loaded, questions)
