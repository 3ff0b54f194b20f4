"""`GET /usage`: what each key has asked for."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from api.dependencies import RatesDep, with_scope
from api.errors import documented
from service.access import Access
from service.rates import KeyUsage

router = APIRouter(tags=["operations"])


class Usage(BaseModel):
    """What keys have asked for, of all replicas together where they share a Redis."""

    keys: tuple[KeyUsage, ...] = Field(
        description="One entry for each day and key, the newest day first.",
        examples=[[{"day": "2026-10-17", "key": "3f9a1c22", "admitted": 1204, "refused": 3}]],
    )


@router.get("/usage", responses=documented(401, 403, 429, 503))
async def usage(rates: RatesDep, access: Annotated[Access, Depends(with_scope("admin"))]) -> Usage:
    """Requests by day and key; a key of owners is told of itself alone."""
    counted = await rates.usage()
    return Usage(
        keys=tuple(one for one in counted if access.owners is None or one.key == access.name)
    )
