"""A Redis that replicas share and that may be gone: whoever needs it goes on without it meanwhile.

One warning when it goes and one when it is back; in between it is left alone for some seconds after
every failure, so that requests do not wait for it one by one. Importing this module loads neither
torch nor faiss.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_CONNECTIONS = 32
_TIMEOUT_S = 0.5  # what it saves may well be faster than that
_REST_S = 5.0  # one that did not answer is left alone for so long


class Gone(Exception):
    """Redis does not answer, or has not just now."""


class SharedRedis:
    """Connections to it.

    Args:
        url: `redis://…`.
        what: For the warning: what is kept there.
        meanwhile: For the warning: what happens while it is gone.
    """

    def __init__(self, url: str, *, what: str, meanwhile: str) -> None:
        pool = ConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        )
        self._redis = Redis.from_pool(pool)
        # A pool calls Redis gone where none is free, and one that blocks lets newcomers overtake
        # who waits, which then seems gone too: here everybody has a turn, in the order they came.
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._what = what
        self._meanwhile = meanwhile
        self._gone_until: float | None = None

    async def ask(self, call: Callable[[Redis], Awaitable[Answer]]) -> Answer:
        """The answer to some commands.

        Raises:
            Gone: There is none.
        """
        try:
            async with self._turns:
                if self._gone_until is not None and time.monotonic() < self._gone_until:
                    raise Gone
                answer = await call(self._redis)
        except (RedisError, OSError) as error:
            if self._gone_until is None:
                log.warning("%s does not answer (%s); %s", self._what, error, self._meanwhile)
            self._gone_until = time.monotonic() + _REST_S
            raise Gone from error
        if self._gone_until is not None:
            log.warning("%s answers again", self._what)
        self._gone_until = None
        return answer

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()
