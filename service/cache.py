"""Where finished answers are kept: in this process, or in a Redis that replicas share.

A key names everything that an answer depends on (`answer_key`), so an entry is never wrong and
nothing has to be thrown out when an index changes. A Redis that is gone is a cache without entries
and one warning. Importing this module loads neither torch nor faiss.
"""

import hashlib
from collections import OrderedDict
from contextlib import suppress
from typing import Protocol

from service.attributor import Serving
from service.schemas import AttributeRequest
from service.shared import Gone, SharedRedis


def answer_key(serving: Serving, request: AttributeRequest) -> str:
    """The name of an answer: what answers, and the whole request in its normal form.

    Args:
        serving: Model, index and program.
        request: The order of a filter's values and repeated ones make no difference.
    """
    if request.filter is not None:
        lists = {
            name: None if values is None else tuple(sorted(set(values)))
            for name, values in (
                ("owners", request.filter.owners),
                ("sources", request.filter.sources),
            )
        }
        request = request.model_copy(update={"filter": request.filter.model_copy(update=lists)})
    digest = hashlib.sha256(f"{serving.model_dump_json()}\n{request.model_dump_json()}".encode())
    return f"whence:answer:{digest.hexdigest()}"


class Cache(Protocol):
    """Keeps answers for a while; never fails."""

    async def get(self, key: str) -> bytes | None:
        """What was put there, if it is still there."""
        ...

    async def put(self, key: str, value: bytes) -> None:
        """Keep it."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class MemoryCache:
    """The answers that were used last, in this process (`Cache`).

    Args:
        max_bytes: Of all values together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._values: OrderedDict[str, bytes] = OrderedDict()  # least recently used first

    async def get(self, key: str) -> bytes | None:
        """See `Cache`."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    async def put(self, key: str, value: bytes) -> None:
        """See `Cache`."""
        self._bytes += len(value) - len(self._values.pop(key, b""))
        self._values[key] = value
        while self._bytes > self._max_bytes:
            _, dropped = self._values.popitem(last=False)
            self._bytes -= len(dropped)

    async def close(self) -> None:
        """See `Cache`."""


class RedisCache:
    """Answers that all replicas share (`Cache`).

    Args:
        url: `redis://…`.
        ttl_s: How long an answer is kept.
    """

    def __init__(self, url: str, *, ttl_s: int) -> None:
        self._shared = SharedRedis(
            url, what="the cache in Redis", meanwhile="every answer is computed"
        )
        self._ttl_s = ttl_s

    async def get(self, key: str) -> bytes | None:
        """See `Cache`."""
        try:
            value = await self._shared.ask(lambda redis: redis.get(key))
        except Gone:
            return None
        return value.encode() if isinstance(value, str) else value

    async def put(self, key: str, value: bytes) -> None:
        """See `Cache`."""
        with suppress(Gone):
            await self._shared.ask(lambda redis: redis.set(key, value, ex=self._ttl_s))

    async def close(self) -> None:
        """See `Cache`."""
        await self._shared.close()
