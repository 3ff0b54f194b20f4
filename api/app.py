"""The application: routes over an attributor, and nothing made at import.

Importing this module loads neither torch nor faiss.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from api.admission import Admission
from api.authentication import Authentication
from api.board import add_dashboard
from api.connections import CLIENT_TIMEOUT_S
from api.errors import add_error_handlers
from api.middleware import BodyLimit, RequestId
from api.observing import Observing
from api.page import add_page
from api.rate_limit import RateLimit
from api.routes import additions as sending
from api.routes import (
    attribute,
    attributions,
    dashboard,
    documents,
    feedback,
    indexes,
    probes,
    usage,
    valuations,
)
from api.routes import chat as completions
from api.tracing import add_tracing
from service.additions import Additions
from service.attributor import Attributor
from service.audit import AuditLog
from service.cache import MemoryCache
from service.chat.chat import Chat
from service.dashboard.dashboard import Dashboard
from service.exchanges import Exchanges
from service.hidden import Hidden
from service.keys import KeyRing
from service.ledger.recorded import Recording
from service.metrics import Metrics
from service.rates import OwnRates, Rates
from service.versions import ServedVersions

MAX_BODY_BYTES = 5_000_000
REQUEST_TIMEOUT_S = 60.0
_EXCHANGES_BYTES = 8 * 2**20  # where nothing else is said
_EXCHANGES_TTL_S = 3600.0


def create_app(
    attributor: Attributor,
    *,
    keys: KeyRing | None = None,
    rates: Rates | None = None,
    versions: ServedVersions | None = None,
    recording: Recording | None = None,
    chat: Chat | None = None,
    exchanges: Exchanges | None = None,
    index_dir: Path | str | None = None,
    additions: Additions | None = None,
    local_only: bool = False,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
    client_timeout_s: float = CLIENT_TIMEOUT_S,
    max_body_bytes: int = MAX_BODY_BYTES,
    cors_origins: Sequence[str] = (),
    hidden: Hidden | None = None,
    audit: AuditLog | None = None,
    metrics: Metrics | None = None,
    shown_settings: Mapping[str, bool | int | float] | None = None,
) -> FastAPI:
    """Build the application.

    Args:
        attributor: Answers the requests; started and closed with the application. It loads in the
            background: `/livez` answers at once, `/readyz` when it is warm.
        keys: Who may ask; None: everybody, for everything.
        rates: How often each key may ask, and has; counted in this process by default.
        versions: Follows and changes the index that the attributor answers from; None: it is
            the business of others.
        recording: The ledger, which answers are in before they leave; None: there is none.
        chat: Writes answers; None: this server does not chat.
        exchanges: What was asked lately, to be attributed by its request id.
        index_dir: Folder or URL of the index, which the dashboard is drawn from; None: none here.
        additions: Keeps documents that are sent to be added; None: none are taken.
        local_only: Answer only under a name of this machine, since there are no keys.
        request_timeout_s: After which an attribution is given up; a caller may ask for less.
        client_timeout_s: In which a body must come whole.
        max_body_bytes: Largest request body.
        cors_origins: Origins whose pages may ask from a browser.
        hidden: What is withheld from every answer.
        audit: Where actions of administrators are written down.
        metrics: What is counted.
        shown_settings: Settings of the deployment that anybody may know.

    Raises:
        InvalidInput: Traces are asked for, and OpenTelemetry is not installed.
    """
    rates = rates or OwnRates()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await attributor.start()
        if versions is not None:
            await versions.start()
        yield
        if versions is not None:
            await versions.close()
        if chat is not None:
            await chat.close()
        await asyncio.to_thread(app.state.dashboard.close)
        await attributor.close()
        await rates.close()
        if recording is not None:  # after the last answer
            await asyncio.to_thread(recording.close)
        flush_traces()

    app = FastAPI(
        title="Whence",
        summary="Which training documents did a language model's answer come from?",
        version=version("whence"),
        lifespan=lifespan,
        # FastAPI's own pages of documentation load scripts from another host.
        docs_url=None,
        redoc_url=None,
    )
    app.state.attributor = attributor
    app.state.versions = versions
    app.state.recording = recording
    app.state.chat = chat
    app.state.exchanges = exchanges or Exchanges(
        MemoryCache(_EXCHANGES_BYTES), ttl_s=_EXCHANGES_TTL_S
    )
    app.state.additions = additions
    app.state.request_timeout_s = request_timeout_s
    app.state.hidden = hidden or Hidden(None, None)
    app.state.rates = rates
    app.state.dashboard = Dashboard(
        index_dir, None if recording is None else lambda: recording.ledger, app.state.hidden
    )
    app.state.audit = audit or AuditLog(None)
    app.state.metrics = metrics or Metrics()
    app.state.shown_settings = dict(shown_settings or {})
    add_error_handlers(app)
    app.add_middleware(RateLimit, rates=rates)
    app.add_middleware(Admission, attributor=attributor)
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes, timeout_s=client_timeout_s)
    app.add_middleware(Authentication, keys=keys, local_only=local_only)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    app.add_middleware(Observing, metrics=app.state.metrics)
    app.add_middleware(RequestId)
    flush_traces = add_tracing(app)  # added last: outermost
    for routes in (
        *(attribute, attributions, completions, dashboard, documents, feedback),
        *(indexes, probes, sending, usage, valuations),
    ):
        app.include_router(routes.router)
    add_page(app)
    add_dashboard(app)
    return app
