"""A server elsewhere answers, and what it says goes through unchanged.

Any server of the OpenAI API will do: vLLM, llama.cpp, Ollama, another Whence. Importing this module
loads neither torch nor faiss.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from influence.errors import TooManyAnswers, UpstreamRefused, UpstreamUnavailable
from service.chat.schemas import ChatRequest

_CONNECT_S = 5.0
_SILENCE_S = 120.0  # between two pieces; a first one may wait for a long queue
_RETRY_S = 5
_END = "[DONE]"
_SHOWN = 1_000  # characters of what it said


class UpstreamChat:
    """Passes chats through to a server (`service.chat.chat.Chat`).

    Args:
        url: Its base, such as ``http://127.0.0.1:8001/v1``.
        key: Its API key; None where it wants none.
        at_once: Answers that are passed through at the same time; more are refused.
    """

    def __init__(self, url: str, *, key: str | None, at_once: int) -> None:
        self._http = httpx2.AsyncClient(
            base_url=url.rstrip("/") + "/",
            headers={} if key is None else {"Authorization": f"Bearer {key}"},
            timeout=httpx2.Timeout(_SILENCE_S, connect=_CONNECT_S),
            trust_env=False,  # a proxy of the environment is for hosts outside
        )
        self._url = url
        self._at_once = at_once
        self._under_way = 0

    async def stream(
        self, request: ChatRequest, *, request_id: str
    ) -> AsyncGenerator[dict[str, Any]]:
        """See `service.chat.chat.Chat`."""
        async with self._answer("POST", "chat/completions", request, request_id) as answer:
            said = ""
            async for line in answer.aiter_lines():
                if not line.startswith("data:"):
                    continue
                said = line.removeprefix("data:").strip()
                if said == _END:
                    break
                event = self._object(said)
                if "error" in event:
                    raise UpstreamRefused(answer.status_code, _sentence(event), body=event)
                yield event
            if said != _END:
                raise UpstreamUnavailable(
                    f"The server that writes the answers, {self._url}, ended in the middle of one. "
                    "Ask again."
                )

    async def complete(self, request: ChatRequest, *, request_id: str) -> dict[str, Any]:
        """See `service.chat.chat.Chat`."""
        async with self._answer("POST", "chat/completions", request, request_id) as answer:
            return self._object(await answer.aread())

    async def models(self) -> dict[str, Any]:
        """See `service.chat.chat.Chat`."""
        async with self._answer("GET", "models", None, None) as answer:
            return self._object(await answer.aread())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, request: ChatRequest | None, request_id: str | None
    ) -> AsyncIterator[httpx2.Response]:
        if request is not None and self._under_way >= self._at_once:
            raise TooManyAnswers(at_once=self._at_once, retry_after_s=_RETRY_S)
        body = None if request is None else _passed_on(request)
        headers = {} if request_id is None else {"X-Request-Id": request_id}
        self._under_way += 1
        try:
            async with self._http.stream(method, path, json=body, headers=headers) as answer:
                if not answer.is_success:
                    raise await self._refusal(answer)
                yield answer
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise UpstreamUnavailable(
                f"The server that writes the answers, {self._url}, did not answer "
                f"({type(error).__name__}). Try again in a moment; if it stays so, check "
                "WHENCE_CHAT_UPSTREAM.",
                retry_after_s=_RETRY_S,
            ) from error
        finally:
            self._under_way -= 1

    async def _refusal(self, answer: httpx2.Response) -> UpstreamRefused:
        content = await answer.aread()
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            text = content.decode("utf-8", "replace")[:_SHOWN]
            body = {"error": {"message": text, "type": None, "param": None, "code": None}}
        return UpstreamRefused(answer.status_code, _sentence(body), body=body)

    def _object(self, said: str | bytes) -> dict[str, Any]:
        try:
            found = json.loads(said)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UpstreamUnavailable(
                f"The server that writes the answers, {self._url}, sent what is no answer of the "
                "OpenAI API. Check WHENCE_CHAT_UPSTREAM."
            )
        return found


def _passed_on(request: ChatRequest) -> dict[str, Any]:
    """As it came, without what is for this server alone."""
    return request.model_dump(mode="json", exclude={"attribution"}, exclude_unset=True)


def _sentence(body: dict[str, Any]) -> str:
    error = body.get("error", body)
    message = error.get("message") if isinstance(error, dict) else error
    return f"The server that writes the answers refused: {str(message)[:_SHOWN]}"
