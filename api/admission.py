"""Refusing what would be refused anyhow, before anything is spent on it.

A server that is asked for several times what it can do spends its time on refusing: validation,
dependencies and the cache's key cost a request more than the model has left for those that it
answers. While the queue is full, a request is refused here by its bytes alone. Those whose very
bytes were answered lately, or are being answered, go on: their answer is in the cache, or shared.
"""

from collections import OrderedDict

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response
from influence.errors import AttributionError, Overloaded
from service.attributor import Attributor

_PATH = "/attribute"
_REMEMBERED = 10_000  # requests, at some hundred bytes each


class Admission:
    """Answers 429 while there is no room; the body has been read whole before (`BodyLimit`).

    What is refused here is not told what else is wrong with it: it comes again later.
    """

    def __init__(self, app: ASGIApp, *, attributor: Attributor) -> None:
        self._app = app
        self._attributor = attributor
        self._answered: OrderedDict[int, None] = OrderedDict()  # the one asked longest ago first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        if scope["type"] != "http" or scope["path"] != _PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        first = await receive()
        asked = hash((scope["state"]["access"].name, first.get("body", b"")))
        known = asked in self._answered
        if not known:
            try:
                self._attributor.check_room()
            except Overloaded as error:
                await error_response(Request(scope), error)(scope, receive, send)
                return
            except AttributionError:  # which is for the route to tell
                pass
        self._remember(asked)
        answered = False

        async def noting_the_status(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"] == 200
            await send(message)

        try:
            await self._app(scope, _first(first, receive), noting_the_status)
        finally:
            if not answered and not known:
                self._answered.pop(asked, None)

    def _remember(self, asked: int) -> None:
        self._answered[asked] = None
        self._answered.move_to_end(asked)
        if len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)


def _first(message: Message, receive: Receive) -> Receive:
    """A `receive` that gives this message, then whatever comes."""
    messages = [message]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
