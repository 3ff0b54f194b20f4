"""`POST /feedback`: what somebody thought of a document beside an answer."""

import asyncio
import time
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from api.dependencies import LedgerDep, ReaderDep
from api.errors import documented
from service.ledger.feedback import Opinion, Verdict, give

router = APIRouter(tags=["valuation"])

_TEXT = r"^[^\x00]*$"  # PostgreSQL keeps no text with a zero in it


class FeedbackRequest(BaseModel):
    """A thumb, up or down."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    request_id: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,128}$",
        description="Of the attribution, as in X-Request-Id.",
        examples=["9f8c2a"],
    )
    document_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000,
        pattern=_TEXT,
        description="The document; null: that of the passage.",
        examples=["factbook/egypt"],
    )
    passage_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000,
        pattern=_TEXT,
        description="The passage that was shown; null: the whole document.",
        examples=["factbook/egypt#0"],
    )
    verdict: Verdict = Field(
        description="up: rightly shown for this answer; down: wrongly.", examples=["up"]
    )
    note: str = Field(
        default="",
        max_length=2_000,
        pattern=_TEXT,
        description="In words.",
        examples=["just so"],
    )

    @model_validator(mode="after")
    def _is_about_something(self) -> "FeedbackRequest":
        if self.document_id is None and self.passage_id is None:
            raise ValueError("it is about nothing; give passage_id, document_id or both")
        return self

    @property
    def document(self) -> str:
        """The document; the id of a passage begins with it."""
        return self.document_id or (self.passage_id or "").rpartition("#")[0]


class FeedbackTaken(BaseModel):
    """It is kept."""

    status: Literal["kept"] = Field(default="kept", description="Always.", examples=["kept"])


@router.post("/feedback", responses=documented(400, 401, 403, 404, 413, 422, 429, 503))
async def feedback(body: FeedbackRequest, ledger: LedgerDep, access: ReaderDep) -> FeedbackTaken:
    """Say whether a document is rightly beside an answer; said again, the newest holds.

    The scope `read` is enough: it changes no ranking and pays nobody, and whoever may
    ask for an answer may say what they think of it.
    """
    opinion = Opinion(
        caller=access.name,
        request_id=body.request_id,
        document_id=body.document,
        passage_id=body.passage_id or "",
        verdict=body.verdict,
        note=body.note,
        time_us=time.time_ns() // 1000,
    )
    await asyncio.to_thread(give, ledger, opinion)
    return FeedbackTaken()
