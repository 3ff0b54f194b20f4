"""`GET /documents/{id}`."""

from typing import Annotated

from fastapi import APIRouter, Path

from api.dependencies import AttributorDep
from api.errors import documented
from service.schemas import DocumentResult

router = APIRouter(tags=["documents"])


@router.get("/documents/{document_id:path}", responses=documented(401, 403, 404, 422, 429, 503))
async def document(
    document_id: Annotated[
        str, Path(description="Id of the document.", examples=["factbook/egypt"])
    ],
    attributor: AttributorDep,
) -> DocumentResult:
    """A document as it was indexed, with its passages."""
    return await attributor.document(document_id)
