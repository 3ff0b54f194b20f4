"""What is counted, timed and logged of every request."""

import logging
import time

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

log = logging.getLogger("whence.requests")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds, by machines


class Observing:
    """Counts and times a request, and logs a line when it is answered.

    A line never holds a prompt, a response or a key.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 499  # as nginx has it: the caller left before there was an answer

        async def noting_the_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, noting_the_status)
            except Exception:
                status = 500  # the handler outside of this one answers so
                raise
            finally:
                self._note(Request(scope), status, time.perf_counter() - begun)

    def _note(self, request: Request, status: int, took_s: float) -> None:
        route = getattr(request.scope.get("route"), "path", "other")
        method = request.method if request.method in _METHODS else "other"
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.request_seconds.labels(route).observe(took_s)
        reason = getattr(request.state, "problem", None)
        if (reason is not None and status < 500) or status == 503:
            self._metrics.rejected.labels(reason or "unavailable").inc()
        path = request.scope["path"]
        if path in _QUIET and status < 400:
            return
        access = getattr(request.state, "access", None)
        log.info(
            "%s %s %d",
            method,
            ascii(path)[1:-1],
            status,
            extra={
                "method": method,
                "path": path,
                "status": status,
                "milliseconds": round(1e3 * took_s, 1),
                "key": access.name if access is not None else None,
                "problem": reason,
            },
        )
