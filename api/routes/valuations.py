"""`GET /owners`, `GET /valuations`, `GET /payouts`: what the ledger says, to whom it concerns."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.dependencies import LedgerDep, ReaderDep
from api.errors import documented
from service.valuation.seen import owners_seen, payouts_seen, valuations_seen

router = APIRouter(tags=["valuation"], responses=documented(401, 403, 404, 422, 429, 503))

PeriodQuery = Annotated[
    str,
    Query(max_length=40, description="2026-10, 2026 or 2026-10-01..2026-10-15.", examples=["2026"]),
]


@router.get("/owners")
async def owners(ledger: LedgerDep, access: ReaderDep) -> dict[str, Any]:
    """The owners that the ledger knows, under the names they have now."""
    return await asyncio.to_thread(owners_seen, ledger, access.owners)


@router.get("/valuations")
async def valuations(ledger: LedgerDep, access: ReaderDep, period: PeriodQuery) -> dict[str, Any]:
    """Signed totals, positive shares and intervals of a period; a key of owners sees its own."""
    return await asyncio.to_thread(valuations_seen, ledger, period, access.owners)


@router.get("/payouts")
async def payouts(ledger: LedgerDep, access: ReaderDep) -> dict[str, Any]:
    """Statements that are paid, the newest first; a key of owners sees its own lines alone."""
    return await asyncio.to_thread(payouts_seen, ledger, access.owners)
