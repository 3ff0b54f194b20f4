"""What was asked and answered lately, so that it can be attributed later under its request id.

It is kept beside the finished answers, in the same cache and for a bounded time, for the key that
asked and for nobody else. Importing this module loads neither torch nor faiss.
"""

import hashlib
import time

from pydantic import BaseModel, ConfigDict

from influence.errors import NotFound
from service.cache import Cache
from service.schemas import AttributeRequest


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True)

    until_s: float  # since 1970
    request: AttributeRequest


class Exchanges:
    """The exchanges of all callers, each for itself.

    Args:
        cache: Where they are kept; it may let the oldest go before their time.
        ttl_s: For how long.
    """

    def __init__(self, cache: Cache, *, ttl_s: float) -> None:
        self._cache = cache
        self._ttl_s = ttl_s

    async def keep(self, request: AttributeRequest, *, request_id: str, caller: str) -> None:
        """Keep what a caller asked under a request id; the newest of one id holds."""
        # What it counts for was said when it was asked.
        asked = request.model_copy(update={"usage": None})
        kept = _Kept(until_s=time.time() + self._ttl_s, request=asked)
        await self._cache.put(_key(request_id, caller), kept.model_dump_json().encode())

    async def find(self, request_id: str, *, caller: str) -> AttributeRequest:
        """What a caller asked.

        Raises:
            NotFound: Nothing under this id, or not any more, or it was somebody else.
        """
        found = await self._cache.get(_key(request_id, caller))
        kept = None if found is None else _Kept.model_validate_json(found)
        if kept is None or kept.until_s < time.time():
            raise NotFound(
                f"Nothing is kept under the request id {request_id[:80]!r}: it is none of this "
                f"key, or older than {self._ttl_s:g} seconds. Send prompt and response to "
                "POST /attribute."
            )
        return kept.request


def _key(request_id: str, caller: str) -> str:
    return f"whence:asked:{hashlib.sha256(f'{caller}/{request_id}'.encode()).hexdigest()}"
