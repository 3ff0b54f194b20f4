"""Problem documents (RFC 9457): the shape in which a failure leaves the API, but for `/v1/`."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response

from api.openai import PREFIX, openai_failure, openai_status
from service.schemas import Problem

MEDIA_TYPE = "application/problem+json"
_MAX_DETAIL = 1_000


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    parameter: str | None = None,
) -> Response:
    """A problem document as a response.

    Args:
        request: Whose id it carries.
        status: HTTP status.
        detail: What happened and what to do; what a caller sent may be part of it.
        kind: Name of the failure, such as ``QueryTooLong``; the status itself when None.
        headers: Further headers.
        parameter: What of the request it is about, where that is known.
    """
    body = document(status, detail, kind=kind, request_id=request.state.request_id)
    request.state.problem = body.title.lower().replace(" ", "-")  # for metrics and logs
    told, media_type = body.model_dump(), MEDIA_TYPE
    if request.scope["path"].startswith(PREFIX):
        status, media_type = openai_status(status), "application/json"
        told = openai_failure(status, body.detail, kind=kind, parameter=parameter)
    # ASCII, since a caller's text may hold half a surrogate pair, which no UTF-8 can carry.
    content = json.dumps(told).encode("ascii")
    return Response(content, status, headers=dict(headers or {}), media_type=media_type)


def document(status: int, detail: str, *, kind: str | None, request_id: str) -> Problem:
    """The document itself; arguments as of `problem`."""
    title = HTTPStatus(status).phrase if kind is None else _words(kind)
    return Problem(
        type="about:blank" if kind is None else f"urn:whence:problem:{_words(kind, '-').lower()}",
        title=title,
        status=status,
        detail=detail if len(detail) <= _MAX_DETAIL else f"{detail[:_MAX_DETAIL]}…",
        request_id=request_id,
    )


def _words(kind: str, between: str = " ") -> str:
    """``QueryTooLong`` -> ``Query too long``."""
    first, *others = re.findall("[A-Z][a-z]*", kind)
    return between.join([first, *(word.lower() for word in others)])
