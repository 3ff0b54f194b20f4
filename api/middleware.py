"""What happens to every request before a route sees it: an id, a limit, headers on the way out."""

import asyncio
import re
import uuid

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.board import CONTENT_SECURITY_POLICY as OF_THE_DASHBOARD
from api.board import PAGE
from api.problems import problem
from service import logs

# The page runs no inline code and asks no other host; corpus text can become neither.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_DISCARDED_BYTES = 256 * 2**20
_DISCARDING_S = 10.0
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestId:
    """Takes `X-Request-Id` where it is sane, else makes one; every answer carries it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        logs.request_id.set(request_id)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**_HEADERS, "X-Request-Id": request_id}.items():
                    headers[name] = value
                if scope["path"] == PAGE:
                    headers["Content-Security-Policy"] = OF_THE_DASHBOARD
            await send(message)

        await self._app(scope, receive, send_with_headers)


class BodyLimit:
    """Refuses a body that is too large, by its announced length or as soon as it has come, or slow.

    The body is read here, whole, so that nothing behind this parses one that is over the limit.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, timeout_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 408 or 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._body(Headers(scope=scope), receive)
        except TimeoutError:
            says = f"The body did not come within {self._timeout_s:g} seconds. Send it faster."
            await _refuse(408, says, scope, receive, send)
            return
        except ClientDisconnect:
            return
        if body is not None:
            await self._app(scope, _replaying(body, receive), send)
            return
        says = f"The body is larger than {self._max_body_bytes:,} bytes. Send a shorter one."
        await _refuse(413, says, scope, receive, send)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """All of it; None where it is over the limit."""
        body = bytearray()
        fits = _announced_bytes(headers) <= self._max_body_bytes
        more = True
        while fits and more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            more = message.get("more_body", False)
            fits = len(body) <= self._max_body_bytes
        if fits:
            return bytes(body)
        if more and "expect" not in headers:
            await _discard(receive)
        return None


async def _refuse(status: int, says: str, scope: Scope, receive: Receive, send: Send) -> None:
    # What is left of the body is not read, so the connection cannot be used again.
    refusal = problem(Request(scope), status, says, headers={"Connection": "close"})
    await refusal(scope, receive, send)


def _announced_bytes(headers: Headers) -> int:
    announced = headers.get("content-length", "")
    return int(announced) if re.fullmatch(r"[0-9]{1,20}", announced) else 0


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then whatever comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _discard(receive: Receive) -> None:
    """Let a client finish sending, within reason.

    Many clients read the answer only after they have sent everything, and a connection that is
    closed before would leave them with a broken pipe instead of a sentence. One that sent `Expect:
    100-continue` waits for the answer and has sent nothing.
    """
    left = _DISCARDED_BYTES
    try:
        async with asyncio.timeout(_DISCARDING_S):
            more = True
            while more and left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        return
