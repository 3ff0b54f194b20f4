"""Who is asking: a key in `Authorization: Bearer KEY`, checked before anything else is read.

Everything needs a valid key but the probes and the page's own files, so a route that somebody adds
is closed until it is named here. What a key may do is asked by the routes (`api.dependencies`).
"""

import ipaddress
from functools import lru_cache

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.board import LIBRARY, PAGE
from api.errors import error_response
from influence.errors import AttributionError, Forbidden, Unauthenticated
from service.access import EVERYTHING, Access
from service.keys import KeyRing

PUBLIC = frozenset(
    {
        "/",
        "/methods",
        "/methods.md",
        PAGE,
        LIBRARY,
        "/livez",
        "/readyz",
        "/metrics",
        "/info",
        "/openapi.json",
    }
)
_PUBLIC_FILES = "/static/"


class Authentication:
    """Lets a request through, with what its caller may do in `request.state.access`.

    Args:
        app: What comes behind.
        keys: The valid keys; None: everybody may do everything.
        local_only: Without keys: refuse what a page of another site could make a browser send.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None, local_only: bool) -> None:
        self._app = app
        self._keys = keys
        self._local_only = local_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 or 403."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope["state"]["access"] = self._access(scope["path"], Headers(scope=scope))
        except AttributionError as error:
            await error_response(Request(scope), error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _access(self, path: str, headers: Headers) -> Access | None:
        if self._keys is None and self._local_only and not is_loopback(_host(headers)):
            raise Forbidden(
                "This server runs without keys and answers only under an address of its own "
                "machine, such as http://127.0.0.1. Serve with --keys to open it to others."
            )
        if path in PUBLIC or path.startswith(_PUBLIC_FILES):
            return None
        if self._keys is None:
            return EVERYTHING
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "This needs an API key: send the header `Authorization: Bearer KEY`. `whence keys "
                "create` makes one.",
                key_given=False,
            )
        return Access.of(self._keys.authenticate(token.strip()))


@lru_cache(maxsize=64)  # asked for every request, mostly with one name
def is_loopback(host: str) -> bool:
    """Whether a name or an address is this machine's own, reachable from nowhere else."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(headers: Headers) -> str:
    host = headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
