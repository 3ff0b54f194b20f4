"""What the HTTP API needs of whatever attributes: here, another process, another machine.

Importing this module loads neither torch nor faiss.
"""

from typing import Protocol

from pydantic import BaseModel, ConfigDict

from service.schemas import (
    AttributeRequest,
    AttributeResult,
    DocumentResult,
    IndexReference,
    ServiceInfo,
)


class Serving(BaseModel):
    """Everything but the request that an answer depends on."""

    model_config = ConfigDict(frozen=True)

    index: IndexReference
    weights_sha256: str
    tokenizer_sha256: str
    dtype: str
    program: str  # version of Whence


class Attributes(Protocol):
    """Answers requests."""

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """Rank the passages that most influenced a response.

        Cancelling the call drops the request; where it still waits, it never reaches the model.

        Raises:
            InvalidInput: The request cannot be attributed, or is too long for the model.
            Overloaded: Too many requests are waiting.
            NotReady: Loading or draining.
        """
        ...


class Answers(Attributes, Protocol):
    """Also tells of documents and of itself: what a caller may ask for."""

    async def document(self, document_id: str) -> DocumentResult:
        """A document of the index.

        Raises:
            NotFound: No document of this id.
            NotReady: Loading or draining.
        """
        ...

    async def info(self) -> ServiceInfo:
        """What is being served.

        Raises:
            NotReady: Loading or draining.
        """
        ...


class Attributor(Answers, Protocol):
    """Also loads and closes; every method may raise an `influence.errors.AttributionError`."""

    @property
    def ready(self) -> bool:
        """Whether a request that comes now is answered at once: loaded, warm, not draining."""
        ...

    @property
    def serving(self) -> Serving:
        """What answers now.

        Raises:
            NotReady: Loading or draining.
        """
        ...

    @property
    def seconds_per_request(self) -> float:
        """What a request takes of the model, measured lately; a guess before the first."""
        ...

    def check_room(self) -> None:
        """Return if a request that comes now would be taken, as far as this is known at once.

        Raises:
            Overloaded: Too many are waiting; `attribute` would raise the same.
            NotReady: Loading or draining.
        """
        ...

    async def start(self) -> None:
        """Begin to load; returns at once."""
        ...

    async def wait_loaded(self) -> ServiceInfo:
        """Wait until loading has ended.

        Raises:
            AttributionError: It failed, and why.
        """
        ...

    async def close(self) -> None:
        """Refuse new requests, finish those accepted, free everything."""
        ...

    async def check_ready(self) -> None:
        """Return if `ready`, else raise why not: NotReady, or the error that ended loading."""
        ...
