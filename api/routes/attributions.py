"""`GET /attributions/{request_id}`: the attribution of an answer that was given before."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from api.dependencies import AttributorDep, ExchangesDep, ReaderDep, TimeoutDep
from api.errors import documented
from api.patience import while_awaited
from service.schemas import AttributeResult, Ranking

router = APIRouter(tags=["attribution"])

IdPath = Annotated[
    str,
    Path(
        max_length=128,
        description="X-Request-Id of a chat completion or an attribution.",
        examples=["9f8c2a"],
    ),
]


@router.get("/attributions/{request_id}", responses=documented(401, 403, 404, 422, 429, 503, 504))
async def attribution(
    request_id: IdPath,
    attributor: AttributorDep,
    exchanges: ExchangesDep,
    access: ReaderDep,
    request: Request,
    timeout_s: TimeoutDep,
    top_k: Annotated[
        int | None, Query(ge=1, le=100, description="Passages on each side.", examples=[10])
    ] = None,
    ranking: Annotated[
        Ranking | None, Query(description="As of POST /attribute.", examples=["relative"])
    ] = None,
    opponents: Annotated[
        bool | None, Query(description="Also those against it.", examples=[True])
    ] = None,
    explain: Annotated[
        bool | None, Query(description="Also split every influence.", examples=[False])
    ] = None,
) -> AttributeResult:
    """Attribute what was asked and answered under a request id, by the same key, not long ago."""
    asked = await exchanges.find(request_id, caller=access.name)
    wanted: dict[str, Any] = {
        "top_k": top_k,
        "ranking": ranking,
        "opponents": opponents,
        "explain": explain,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    work = attributor.attribute(asked.model_copy(update=given), request_id=request_id)
    return await while_awaited(request, work, timeout_s=timeout_s)
