"""A chat whose answers are attributed: at once where that is asked for, and later by request id.

Importing this module loads neither torch nor faiss.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from influence.errors import AttributionError, DeadlineExceeded, InvalidInput
from service.access import Access, Seen
from service.chat.chat import Chat, text_of
from service.chat.schemas import AttributionOptions, ChatRequest
from service.chat.supported import conversation_of
from service.context import ContextTurn
from service.exchanges import Exchanges
from service.schemas import AttributeRequest


class AttributedChat:
    """Another chat, as one caller sees it.

    Args:
        chat: Writes the answers.
        attributor: Attributes them.
        exchanges: Keeps them for later.
        access: The caller.
        timeout_s: For an attribution.
    """

    def __init__(
        self,
        chat: Chat,
        attributor: Seen,
        exchanges: Exchanges,
        access: Access,
        *,
        timeout_s: float,
    ) -> None:
        self._chat = chat
        self._attributor = attributor
        self._exchanges = exchanges
        self._caller = access.name
        self._timeout_s = timeout_s

    async def stream(
        self, request: ChatRequest, *, request_id: str
    ) -> AsyncGenerator[dict[str, Any]]:
        """The events of the answer, then, if it was asked for, one with its attribution.

        Raises as `service.chat.chat.Chat`; an attribution that fails is told in its event.
        """
        pieces: list[str] = []
        last: dict[str, Any] = {}
        async with aclosing(self._chat.stream(request, request_id=request_id)) as events:
            async for event in events:
                last = event
                pieces.append(text_of(event))
                yield event
        attribution = await self._attribution(request, "".join(pieces), request_id)
        if request.attribution is not None:
            common = {name: last.get(name) for name in ("id", "object", "created", "model")}
            yield {**common, "choices": [], **attribution}

    async def complete(self, request: ChatRequest, *, request_id: str) -> dict[str, Any]:
        """The whole answer, with its attribution if that was asked for."""
        answer = await self._chat.complete(request, request_id=request_id)
        first = next(iter(answer.get("choices") or ()), {})
        text = (first.get("message") or {}).get("content") or ""
        attribution = await self._attribution(request, text, request_id)
        return {**answer, **attribution} if request.attribution is not None else answer

    async def _attribution(
        self, request: ChatRequest, response: str, request_id: str
    ) -> dict[str, Any]:
        """``attribution``, null with an ``attribution_error`` where there is none."""
        try:
            asked = attribute_request(request, response)
            await self._exchanges.keep(asked, request_id=request_id, caller=self._caller)
            if request.attribution is None:
                return {}
            async with asyncio.timeout(self._timeout_s):
                found = await self._attributor.attribute(asked, request_id=request_id)
        except TimeoutError:
            return _failed(DeadlineExceeded(timeout_s=self._timeout_s))
        except AttributionError as error:  # the answer itself is there, and stays
            return _failed(error)
        return {"attribution": found.model_dump(mode="json")}


def attribute_request(request: ChatRequest, response: str) -> AttributeRequest:
    """What is attributed of a chat: the answer, behind everything that was said before it.

    Raises:
        InvalidInput: The answer is empty, or the conversation holds more than texts.
    """
    if not response:
        raise InvalidInput("The answer is empty, so there is nothing to attribute. Ask again.")
    *before, question = conversation_of(request)
    options = request.attribution or AttributionOptions()
    turns = tuple(
        ContextTurn.model_validate({"role": one.role, "content": one.content}) for one in before
    )
    try:
        return AttributeRequest(
            prompt=question.content,
            response=response,
            context=turns or None,
            **dict(options),
        )
    except ValueError as error:
        raise InvalidInput(
            f"The conversation is too long to be attributed: {len(before) + 1} turns, the answer "
            f"of {len(response)} characters. Send less of it to POST /attribute."
        ) from error


def _failed(error: AttributionError) -> dict[str, Any]:
    return {
        "attribution": None,
        "attribution_error": {"type": type(error).__name__, "message": str(error)},
    }
