"""The page at `/` and its files, as they stand in the package `web`."""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles


def add_page(app: FastAPI) -> None:
    """Serve the page, from a checkout or from an installed wheel alike."""
    static = Path(str(files("web").joinpath("static")))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(static / "index.html")

    app.mount("/static", StaticFiles(directory=static))
