"""What the HTTP API needs of whatever attributes: here, another process, another machine.

Importing this module loads neither torch nor faiss.
"""

from typing import Protocol

from service.schemas import AttributeRequest, AttributeResult, DocumentResult, ServiceInfo


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


class Attributor(Attributes, Protocol):
    """Also loads and closes; every method may raise an `influence.errors.AttributionError`."""

    @property
    def ready(self) -> bool:
        """Whether a request that comes now is answered at once: loaded, warm, not draining."""
        ...

    async def start(self) -> None:
        """Begin to load; returns at once."""
        ...

    async def close(self) -> None:
        """Refuse new requests, finish those accepted, free everything."""
        ...

    async def check_ready(self) -> None:
        """Return if `ready`, else raise why not: NotReady, or the error that ended loading."""
        ...

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
