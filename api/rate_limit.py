"""How often a key may ask: counted, and refused with 429 beyond its rate.

Behind `Admission`: a request that a full server refuses does not count, and is not asked about in
the Redis that replicas share, which an overload would keep busy with what is refused anyhow.
"""

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import error_response
from influence.errors import RateLimited
from service.rates import Rates


class RateLimit:
    """Counts a request and lets it through; who asks was told by `Authentication`.

    Args:
        app: What comes behind.
        rates: How often each key may ask, and has.
    """

    def __init__(self, app: ASGIApp, *, rates: Rates) -> None:
        self._app = app
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 429."""
        access = scope["state"]["access"] if scope["type"] == "http" else None
        try:
            if access is not None:
                await self._rates.admit(access.name, access.requests_per_minute)
        except RateLimited as error:
            await error_response(Request(scope), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)
