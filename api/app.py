"""The application: routes over an attributor, and nothing made at import.

Importing this module loads neither torch nor faiss.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api.authentication import Authentication
from api.errors import add_error_handlers
from api.middleware import BodyLimit, RequestId
from api.page import add_page
from api.routes import attribute, documents, probes
from service.attributor import Attributor
from service.keys import KeyRing
from service.rates import SlidingWindow

MAX_BODY_BYTES = 5_000_000
REQUEST_TIMEOUT_S = 60.0


def create_app(
    attributor: Attributor,
    *,
    keys: KeyRing | None = None,
    local_only: bool = False,
    request_timeout_s: float = REQUEST_TIMEOUT_S,
    max_body_bytes: int = MAX_BODY_BYTES,
) -> FastAPI:
    """Build the application.

    Args:
        attributor: Answers the requests; started and closed with the application. It loads in the
            background: `/livez` answers at once, `/readyz` when it is warm.
        keys: Who may ask; None: everybody, for everything.
        local_only: Answer only under a name of this machine, since there are no keys.
        request_timeout_s: After which an attribution is given up; a caller may ask for less.
        max_body_bytes: Largest request body.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await attributor.start()
        yield
        await attributor.close()

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
    app.state.request_timeout_s = request_timeout_s
    add_error_handlers(app)
    app.add_middleware(BodyLimit, max_body_bytes=max_body_bytes)
    app.add_middleware(Authentication, keys=keys, rates=SlidingWindow(), local_only=local_only)
    app.add_middleware(RequestId)  # added last: outermost
    for routes in (attribute, documents, probes):
        app.include_router(routes.router)
    add_page(app)
    return app
