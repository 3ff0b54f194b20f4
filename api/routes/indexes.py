"""`GET /indexes` and `POST /indexes/{id}/activate`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from api.dependencies import AdministratorDep, VersionsDep, with_scope
from api.errors import documented
from influence.errors import Forbidden
from service.versions import IndexVersions

router = APIRouter(tags=["indexes"])


@router.get(
    "/indexes",
    responses=documented(401, 403, 404, 422, 429, 503),
    dependencies=[Depends(with_scope("admin"))],
)
async def indexes(versions: VersionsDep) -> IndexVersions:
    """The versions of the index: which is current, which is served."""
    return await versions.listed()


@router.post(
    "/indexes/{version}/activate", responses=documented(401, 403, 404, 409, 422, 429, 503, 507)
)
async def activate(
    version: Annotated[
        str, Path(description="Name of the version.", examples=["000001-0a1b2c3d4e5f"])
    ],
    administrator: AdministratorDep,
    versions: VersionsDep,
) -> IndexVersions:
    """Make a version current and answer from it; other servers of the index follow."""
    if administrator.owners is not None:  # it would bring documents of others back, or take them
        raise Forbidden("This key is for the documents of its owners alone. Use another key.")
    return await versions.activate(version)
