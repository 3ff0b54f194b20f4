"""`GET /livez`, `/readyz`, `/info` and `/metrics`."""

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel, Field

from api.dependencies import PublicAttributorDep
from api.errors import documented
from influence.errors import AttributionError
from service.metrics import CONTENT_TYPE, Metrics
from service.schemas import ServiceInfo

router = APIRouter(tags=["operations"])


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = Field(default="alive", description="Always.", examples=["alive"])


class Ready(BaseModel):
    """Model and index are loaded and warm."""

    status: Literal["ready"] = Field(default="ready", description="Always.", examples=["ready"])


@router.get("/livez")
async def livez() -> Alive:
    """Whether the process answers; also while it is loading."""
    return Alive()


@router.get("/readyz", responses=documented(503))
async def readyz(attributor: PublicAttributorDep) -> Ready:
    """Whether a request would be answered: 503 while loading and while shutting down."""
    await attributor.check_ready()
    return Ready()


@router.get("/info", responses=documented(503))
async def info(request: Request, attributor: PublicAttributorDep) -> ServiceInfo:
    """What is being served: model, index and what was measured of it, version, settings."""
    served = await attributor.info()
    state = request.app.state
    told = {"settings": state.shown_settings, "expected_ms": state.metrics.expected_ms}
    return served.model_copy(update=told)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, attributor: PublicAttributorDep) -> Response:
    """What Prometheus reads."""
    told: Metrics = request.app.state.metrics
    try:
        told.serves(await attributor.info())
    except AttributionError:
        told.serves(None)
    return Response(told.exposition(), media_type=CONTENT_TYPE)
