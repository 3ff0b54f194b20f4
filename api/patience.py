"""Work goes on only while somebody waits for it: the caller is there and has time left.

Both ends are a cancellation, which `service` answers by dropping the request before it reaches the
model.
"""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from influence.errors import DeadlineExceeded

Answer = TypeVar("Answer")


async def while_awaited(request: Request, work: Awaitable[Answer], *, timeout_s: float) -> Answer:
    """The answer of some work, unless its caller leaves or runs out of time before.

    Args:
        request: Whose body has been read.
        work: Is cancelled at either end.
        timeout_s: The caller's patience.

    Raises:
        DeadlineExceeded: It took longer.
        ClientDisconnect: The caller has gone; nobody reads the answer to this.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_leaves(request))
    try:
        await asyncio.wait(
            {working, watching}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if working.done():
            return working.result()
        if watching.done():
            raise ClientDisconnect
        raise DeadlineExceeded(timeout_s=timeout_s)
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
