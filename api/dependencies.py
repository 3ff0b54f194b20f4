"""What routes ask for."""

from typing import Annotated

from fastapi import Depends, Request

from service.attributor import Attributor


def _attributor(request: Request) -> Attributor:
    return request.app.state.attributor


def _request_id(request: Request) -> str:
    return request.state.request_id


AttributorDep = Annotated[Attributor, Depends(_attributor)]
RequestIdDep = Annotated[str, Depends(_request_id)]
