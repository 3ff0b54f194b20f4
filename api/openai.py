"""Failures below `/v1/`, in the one form that clients of the OpenAI API read."""

import re
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, Field

PREFIX = "/v1/"
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {"QueryTooLong": "context_length_exceeded"}  # where theirs is another word
_STATUS = {422: 400}  # they know no 422


class OpenAIError(BaseModel):
    """What went wrong."""

    message: str = Field(
        description="What happened and what to do.",
        examples=["There is no model 'gpt' here; GET /v1/models lists those there are."],
    )
    type: str = Field(description="The kind, coarsely.", examples=["invalid_request_error"])
    param: str | None = Field(description="The parameter it is about.", examples=["model"])
    code: str | None = Field(description="The kind, finely.", examples=["not_found"])


class OpenAIFailure(BaseModel):
    """A failure of a route below `/v1/`."""

    error: OpenAIError


def openai_status(status: int) -> int:
    """The status that they use where we use another."""
    return _STATUS.get(status, status)


def openai_failure(
    status: int, detail: str, *, kind: str | None, parameter: str | None
) -> dict[str, Any]:
    """The body of a failure.

    Args:
        status: HTTP status, theirs.
        detail: What happened and what to do.
        kind: Name of the failure, such as ``QueryTooLong``.
        parameter: The parameter it is about.
    """
    default = "server_error" if status >= 500 else "invalid_request_error"
    code = None if kind is None else re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()
    error = OpenAIError(
        message=detail,
        type=_TYPES.get(status, default),
        param=parameter,
        code=_CODES.get(kind or "", code),
    )
    return OpenAIFailure(error=error).model_dump()


def documented_as_openai(*statuses: int | Literal["4XX"]) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route below `/v1/`; ``4XX`` are those that an upstream has besides."""
    return {
        status: {
            "description": "Refused" if status == "4XX" else HTTPStatus(status).phrase,
            "model": OpenAIFailure,
        }
        for status in statuses
    }
