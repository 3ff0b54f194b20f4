"""`GET /dashboard/views/{view}` and its tables as files: data valuation for people."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response

from api.dependencies import ReaderDep
from api.errors import documented
from influence.errors import Forbidden, NotFound
from service.dashboard.dashboard import Dashboard, ViewName
from service.dashboard.sources import Filters
from service.dashboard.view import View

router = APIRouter(tags=["valuation"])

MOST_ROWS = 200  # of a table in a page; a file has all
_MEDIA = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
_FAILURES = documented(401, 403, 404, 422, 429, 503)


async def _filters(
    period: Annotated[
        str | None,
        Query(
            max_length=40,
            description="2026-10, 2026 or 2026-10-01..2026-10-15; by default all of the ledger.",
            examples=["2026"],
        ),
    ] = None,
    owner: Annotated[
        str | None,
        Query(max_length=1_000, description="Documents of this owner.", examples=["Egypt"]),
    ] = None,
    source: Annotated[
        str | None,
        Query(max_length=1_000, description="Documents from this source.", examples=["Factbook"]),
    ] = None,
) -> Filters:
    return Filters(period or None, owner or None, source or None)


async def _dashboard(request: Request, access: ReaderDep) -> Dashboard:
    if access.owners is not None:  # it would show worth and texts of others
        raise Forbidden(
            "The dashboard shows everybody's documents, and this key is for those of its owners. "
            "GET /valuations shows their lines."
        )
    return request.app.state.dashboard


DashboardDep = Annotated[Dashboard, Depends(_dashboard)]
FiltersDep = Annotated[Filters, Depends(_filters)]
ViewPath = Annotated[ViewName, Path(description="Which view.", examples=["owners"])]
SubjectQuery = Annotated[
    str | None,
    Query(
        alias="id",
        max_length=1_000,
        description="Of the views document and owner: which one.",
        examples=["factbook/egypt"],
    ),
]


@router.get("/dashboard/views/{view}", responses=_FAILURES)
async def view(
    view: ViewPath, dashboard: DashboardDep, filters: FiltersDep, subject: SubjectQuery = None
) -> dict[str, Any]:
    """A view of the dashboard: facts, figures of Plotly, the first rows of its tables."""
    drawn = await _drawn(dashboard, view, filters, subject)
    return drawn.as_json(most_rows=MOST_ROWS)


@router.get(
    "/dashboard/views/{view}/{table}.{form}",
    response_class=Response,
    responses={200: {"content": {media: {} for media in _MEDIA.values()}}, **_FAILURES},
)
async def table(
    view: ViewPath,
    table: Annotated[
        str, Path(max_length=40, description="Name of the table.", examples=["owners"])
    ],
    form: Annotated[
        Literal["csv", "parquet"], Path(description="Form of the file.", examples=["csv"])
    ],
    dashboard: DashboardDep,
    filters: FiltersDep,
    subject: SubjectQuery = None,
) -> Response:
    """A table of a view as a file, whole."""
    drawn = await _drawn(dashboard, view, filters, subject)
    found = next((one for one in drawn.tables if one.name == table), None)
    if found is None:
        names = ", ".join(one.name for one in drawn.tables)
        raise NotFound(f"The view {view} has no table {table!r}. It has {names}.")
    content = found.to_csv() if form == "csv" else found.to_parquet()
    return Response(
        content,
        media_type=_MEDIA[form],
        headers={"Content-Disposition": f'attachment; filename="{found.name}.{form}"'},
    )


async def _drawn(
    dashboard: Dashboard, name: ViewName, filters: Filters, subject: str | None
) -> View:
    return await asyncio.to_thread(dashboard.view, name, filters, subject=subject)
