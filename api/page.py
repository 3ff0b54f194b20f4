"""The page at `/`, the account of the method at `/methods`, and their files from package `web`."""

from collections.abc import MutableMapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

_SMALLEST_COMPRESSED = 500  # bytes
# Modules of two versions must not meet in one page: a browser asks whether its copy is the newest.
_ASK_AGAIN = {"Cache-Control": "no-cache"}


def add_page(app: FastAPI) -> None:
    """Serve the page, from a checkout or from an installed wheel alike."""
    static = Path(str(files("web").joinpath("static")))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(static / "index.html", headers=_ASK_AGAIN)

    @app.get("/methods", include_in_schema=False)
    async def methods() -> FileResponse:
        return FileResponse(static / "methods.html", headers=_ASK_AGAIN)

    @app.get("/methods.md", include_in_schema=False)
    async def methods_text() -> FileResponse:
        return FileResponse(static / "methods.md", media_type="text/markdown", headers=_ASK_AGAIN)

    served = GZipMiddleware(_Static(directory=static), minimum_size=_SMALLEST_COMPRESSED)
    app.mount("/static", served)


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: MutableMapping[str, Any]) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_ASK_AGAIN)
        return response
