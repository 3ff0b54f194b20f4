"""Which status an error has, and nothing else knows it."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Mount

from api.problems import MEDIA_TYPE, document, problem
from influence.errors import (
    AttributionError,
    DeadlineExceeded,
    Forbidden,
    IndexBusy,
    IndexUnavailable,
    InvalidInput,
    KeysUnavailable,
    LedgerUnavailable,
    ListUnavailable,
    ModelUnavailable,
    NotFound,
    NotReady,
    NumericalError,
    Overloaded,
    RateLimited,
    ServiceUnavailable,
    StorageFull,
    Unauthenticated,
    Unsupported,
    UpstreamRefused,
    UpstreamUnavailable,
)
from service.schemas import Problem

log = logging.getLogger(__name__)

STATUS: dict[type[Exception], int] = {
    InvalidInput: 422,
    NotFound: 404,
    NumericalError: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    Overloaded: 429,
    RateLimited: 429,
    UpstreamUnavailable: 502,
    UpstreamRefused: 502,  # where its own status says less
    KeysUnavailable: 503,
    DeadlineExceeded: 504,
    ListUnavailable: 503,
    NotReady: 503,
    ModelUnavailable: 503,
    IndexUnavailable: 503,
    LedgerUnavailable: 503,
    IndexBusy: 409,
    StorageFull: 507,
    RequestValidationError: 422,
    AttributionError: 500,
    Exception: 500,
}

_CHALLENGE = 'Bearer realm="whence"'  # RFC 6750
_CLIENT_CLOSED_REQUEST = 499  # no standard, but what proxies call it
_SHOWN_ERRORS = 5  # of a request that breaks many rules
_SHOWN_NAME = 80  # characters of a field's name, which the caller may have made up


def status_of(error: Exception) -> int:
    """The status of an error: that of the nearest class in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def add_error_handlers(app: FastAPI) -> None:
    """Let every failure leave as a problem document."""
    app.add_exception_handler(AttributionError, _attribution_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _unexpected)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route: these statuses come as problem documents."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


def problem_of(error: AttributionError, request_id: str) -> Problem:
    """An error as a document inside an answer, where one of several requests has failed."""
    return document(status_of(error), str(error), kind=type(error).__name__, request_id=request_id)


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=_CLIENT_CLOSED_REQUEST)  # which nobody reads


def error_response(request: Request, error: AttributionError) -> Response:
    """An error of ours as a problem document, with the headers that belong to it."""
    if isinstance(error, UpstreamRefused) and error.status >= 400:
        return JSONResponse(error.body, error.status)
    return problem(
        request,
        status_of(error),
        str(error),
        kind=type(error).__name__,
        headers=_headers(error),
        parameter=error.parameter if isinstance(error, Unsupported) else None,
    )


def _headers(error: AttributionError) -> dict[str, str]:
    match error:
        case ServiceUnavailable(retry_after_s=int(wait)):
            return {"Retry-After": str(wait)}
        case Unauthenticated(key_given=given):
            return {"WWW-Authenticate": _CHALLENGE + (', error="invalid_token"' if given else "")}
        case Forbidden(scope=str(scope)):
            lacking = f', error="insufficient_scope", scope="{scope}"'
            return {"WWW-Authenticate": _CHALLENGE + lacking}
        case _:
            return {}


async def _attribution_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AttributionError)
    return error_response(request, error)


async def _invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [_as_sentence(one) for one in error.errors()]
    more = len(found) - _SHOWN_ERRORS
    rest = [f"{more} more."] if more > 0 else []
    detail = " ".join([*found[:_SHOWN_ERRORS], *rest])
    parameter = _path_of(error.errors()[0]) or None
    return problem(request, status_of(error), detail, kind="InvalidRequest", parameter=parameter)


def _path_of(error: dict[str, Any]) -> str:
    return ".".join(str(part) for part in error["loc"] if part != "body")[:_SHOWN_NAME]


def _as_sentence(error: dict[str, Any]) -> str:
    """``top_k: input should be …`` without the caller's own text, which may be long."""
    if error["type"] == "json_invalid":
        return f"The body is not JSON: {error['ctx']['error']} at character {error['loc'][-1]}."
    if error["loc"] == ("body",) and error["type"] in ("missing", "model_attributes_type"):
        return "The body is no JSON object. Send one, with Content-Type: application/json."
    path = _path_of(error)
    message = error["msg"].removeprefix("Value error, ")
    return f"{path or 'The body'}: {message[:1].lower()}{message[1:]}."


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path[:_SHOWN_NAME]
    detail = {
        404: f"There is nothing at {path}. /openapi.json lists what there is.",
        405: f"{request.method[:_SHOWN_NAME]} is not allowed on {path}. The header Allow names "
        "what is.",
        400: "The body cannot be read as JSON. Send one JSON object, in UTF-8.",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405 and (allowed := _allowed(request)):
        headers["Allow"] = allowed
    return problem(request, error.status_code, detail, headers=headers)


def _allowed(request: Request) -> str:
    """Methods of every route of the path; the framework names those of the first one alone."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    return ", ".join(
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(r.matches({**request.scope, "method": method})[0] is Match.FULL for r in routes)
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request %s failed", request.state.request_id, exc_info=error)
    return problem(
        request,
        500,
        "Something went wrong that should not have. The log of the server has the details under "
        "this request id.",
        # The middleware that adds it elsewhere has been left behind by the exception.
        headers={"X-Request-Id": request.state.request_id},
    )
