"""A failure as it leaves the HTTP API, alone or as an item of a batch."""

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """A failure (RFC 9457)."""

    type: str = Field(
        description="Names the kind of failure.", examples=["urn:whence:problem:invalid-request"]
    )
    title: str = Field(description="The kind, in words.", examples=["Invalid request"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(
        description="What happened and what to do.",
        examples=["top_k: input should be less than or equal to 100."],
    )
    request_id: str = Field(description="Also in X-Request-Id.", examples=["9f8c2a"])
