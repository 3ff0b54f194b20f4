"""`GET /livez`, `/readyz` and `/info`."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.dependencies import PublicAttributorDep
from api.errors import documented
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
async def info(attributor: PublicAttributorDep) -> ServiceInfo:
    """What is being served: model, index, version."""
    return await attributor.info()
