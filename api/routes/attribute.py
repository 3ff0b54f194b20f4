"""`POST /attribute` and `POST /attribute/batch`."""

from fastapi import APIRouter, Request

from api.dependencies import (
    AttributorDep,
    ExchangesDep,
    RatesDep,
    ReaderDep,
    RequestIdDep,
    TimeoutDep,
)
from api.errors import documented, problem_of
from api.patience import while_awaited
from service.many import attribute_each
from service.schemas import (
    AttributeRequest,
    AttributeResult,
    BatchItem,
    BatchRequest,
    BatchResult,
)

router = APIRouter(tags=["attribution"])


@router.post("/attribute", responses=documented(400, 401, 403, 413, 422, 429, 503, 504))
async def attribute(
    body: AttributeRequest,
    attributor: AttributorDep,
    exchanges: ExchangesDep,
    access: ReaderDep,
    request_id: RequestIdDep,
    request: Request,
    timeout_s: TimeoutDep,
) -> AttributeResult:
    """Rank the training passages that most influenced a response."""
    work = attributor.attribute(body, request_id=request_id)
    found = await while_awaited(request, work, timeout_s=timeout_s)
    await exchanges.keep(body, request_id=request_id, caller=access.name)
    return found


@router.post("/attribute/batch", responses=documented(400, 401, 403, 413, 422, 429, 503, 504))
async def attribute_batch(
    body: BatchRequest,
    attributor: AttributorDep,
    request_id: RequestIdDep,
    request: Request,
    timeout_s: TimeoutDep,
    access: ReaderDep,
    rates: RatesDep,
) -> BatchResult:
    """Attribute several responses; each has the limits of a single one and fails by itself."""
    work = attribute_each(
        attributor,
        body.requests,
        request_id=request_id,
        admit=lambda: rates.admit(access.name, access.requests_per_minute),
    )
    outcomes = await while_awaited(request, work, timeout_s=timeout_s)
    return BatchResult(
        request_id=request_id,
        items=tuple(
            BatchItem(result=outcome)
            if isinstance(outcome, AttributeResult)
            else BatchItem(problem=problem_of(outcome, f"{request_id}.{number}"))
            for number, outcome in enumerate(outcomes)
        ),
    )
