"""The page of the dashboard and Plotly's library, which comes out of the installed package."""

from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from service.dashboard.figures import plotly_library

PAGE, LIBRARY = "/dashboard", "/dashboard/plotly.min.js"
# Plotly writes the styles of its figures itself; scripts are files of this server here too, and no
# text becomes markup in our own modules.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_dashboard(app: FastAPI) -> None:
    """Serve the page; its files are among those of `api.page`."""
    page = Path(str(files("web").joinpath("static/dashboard/index.html")))

    @app.get(PAGE, include_in_schema=False)
    async def dashboard() -> FileResponse:
        return FileResponse(page)

    @app.get(LIBRARY, include_in_schema=False)
    def library() -> FileResponse:  # in a thread: the package takes a second to import
        return FileResponse(plotly_library(), media_type="text/javascript")
