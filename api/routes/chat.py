"""`POST /v1/chat/completions` and `GET /v1/models`, in the form of the OpenAI API."""

import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.dependencies import (
    AttributedChatDep,
    ChatDep,
    ReaderDep,
    RequestIdDep,
    TimeoutDep,
)
from api.errors import status_of
from api.openai import documented_as_openai, openai_failure
from api.patience import while_awaited
from influence.errors import AttributionError, UpstreamRefused
from service.chat.schemas import ChatCompletion, ChatRequest, ModelList

router = APIRouter(prefix="/v1", tags=["chat"])
log = logging.getLogger(__name__)

_COMPLETIONS: dict[int | str, dict[str, Any]] = {
    200: {"model": ChatCompletion, "content": {"text/event-stream": {}}},
    **documented_as_openai(400, 401, 403, 404, 413, 429, "4XX", 502, 503, 504),
}


@router.post("/chat/completions", response_class=JSONResponse, responses=_COMPLETIONS)
async def completions(
    body: ChatRequest,
    chat: AttributedChatDep,
    request_id: RequestIdDep,
    request: Request,
    timeout_s: TimeoutDep,
) -> Response:
    """Answer a chat; with `attribution`, also tell what the answer came from."""
    if not body.streamed:
        work = chat.complete(body, request_id=request_id)
        return JSONResponse(await while_awaited(request, work, timeout_s=timeout_s))
    events = chat.stream(body, request_id=request_id)
    # What is wrong with the request is told by a status, so before the stream begins.
    first = await while_awaited(request, anext(events), timeout_s=timeout_s)
    return EventStream(first, events)


@router.get("/models", responses=documented_as_openai(401, 403, 404, 429, 502, 503))
async def models(chat: ChatDep, _reader: ReaderDep) -> ModelList:
    """The models that answer."""
    return ModelList.model_validate(await chat.models())


class EventStream(StreamingResponse):
    """Server-sent events as the OpenAI API sends them; whoever leaves ends the writing."""

    def __init__(self, first: dict[str, Any], following: AsyncGenerator[dict[str, Any]]) -> None:
        self._following = following
        super().__init__(
            _lines(first, following),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the caller leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._following.aclose()


async def _lines(
    first: dict[str, Any], following: AsyncGenerator[dict[str, Any]]
) -> AsyncGenerator[str]:
    yield _line(first)
    try:
        async for event in following:
            yield _line(event)
    except UpstreamRefused as error:
        yield _line(error.body)
        return
    except AttributionError as error:  # too late for a status
        status = status_of(error)
        kind = type(error).__name__
        yield _line(openai_failure(status, str(error), kind=kind, parameter=None))
        return
    yield "data: [DONE]\n\n"


def _line(event: dict[str, Any]) -> str:
    # ASCII: no character in it can be taken for the end of a line.
    return f"data: {json.dumps(event)}\n\n"
