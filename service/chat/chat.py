"""What the HTTP API needs of whatever writes answers: a model here, or a server elsewhere.

Events and completions are JSON objects in the form of the OpenAI API. Importing this module loads
neither torch nor faiss.
"""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from service.chat.schemas import ChatRequest


class Chat(Protocol):
    """Writes answers."""

    def stream(self, request: ChatRequest, *, request_id: str) -> AsyncGenerator[dict[str, Any]]:
        """The events of an answer, as it is written; closing the generator ends the writing.

        Raises:
            InvalidInput: The request cannot be answered; `Unsupported` names the parameter.
            NotFound: No such model.
            TooManyAnswers: As many answers are being written as may be at once.
            NotReady: Loading or draining.
            UpstreamUnavailable: The server elsewhere cannot be reached.
            UpstreamRefused: It refused, in its own words.
        """
        ...

    async def complete(self, request: ChatRequest, *, request_id: str) -> dict[str, Any]:
        """The whole answer; raises as `stream`."""
        ...

    async def models(self) -> dict[str, Any]:
        """The models that answer; raises as `stream`."""
        ...

    async def close(self) -> None:
        """Free everything."""
        ...


def text_of(event: dict[str, Any]) -> str:
    """What an event adds to the first answer."""
    for choice in event.get("choices") or ():
        if choice.get("index", 0) == 0:
            return (choice.get("delta") or {}).get("content") or ""
    return ""
