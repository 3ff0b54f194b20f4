"""`POST /attribute`."""

from fastapi import APIRouter

from api.dependencies import AttributorDep, RequestIdDep
from api.errors import documented
from service.schemas import AttributeRequest, AttributeResult

router = APIRouter(tags=["attribution"])


@router.post("/attribute", responses=documented(400, 401, 403, 413, 422, 429, 503))
async def attribute(
    body: AttributeRequest, attributor: AttributorDep, request_id: RequestIdDep
) -> AttributeResult:
    """Rank the training passages that most influenced a response."""
    return await attributor.attribute(body, request_id=request_id)
