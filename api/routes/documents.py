"""`GET` and `DELETE /documents/{id}`."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.dependencies import AdministratorDep, AttributorDep, VersionsDep
from api.errors import documented
from service.schemas import DocumentResult
from service.versions import DocumentRemoved

router = APIRouter(tags=["documents"])


IdPath = Annotated[str, Path(description="Id of the document.", examples=["factbook/egypt"])]


@router.get("/documents/{document_id:path}", responses=documented(401, 403, 404, 422, 429, 503))
async def document(document_id: IdPath, attributor: AttributorDep) -> DocumentResult:
    """A document as it was indexed, with its passages."""
    return await attributor.document(document_id)


@router.delete(
    "/documents/{document_id:path}", responses=documented(401, 403, 404, 409, 422, 429, 503, 507)
)
async def remove(
    document_id: IdPath, administrator: AdministratorDep, versions: VersionsDep
) -> DocumentRemoved:
    """Remove a document: no request that comes after the answer to this one meets it."""
    return await versions.remove(document_id, owners=administrator.owners)
