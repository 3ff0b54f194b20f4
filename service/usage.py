"""What a request says of its own weight in the ledger (`service.ledger`)."""

from pydantic import BaseModel, ConfigDict, Field


class Usage(BaseModel):
    """What an answer counts for in the ledger; it changes nothing of the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    billable: bool = Field(
        default=True,
        strict=True,
        description="Whether it counts where only billable answers are recorded.",
        examples=[True],
    )
    weight: float = Field(
        gt=0,
        le=1e12,
        allow_inf_nan=False,
        description="What it counts: its tokens, or what was paid for it, in one unit for all.",
        examples=[0.002],
    )
