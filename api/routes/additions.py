"""`POST /documents` and `GET /additions/{id}`."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.dependencies import AdditionsDep, WriterDep
from api.errors import documented
from service.sent import Addition, AdditionRequest

router = APIRouter(tags=["documents"])


@router.post(
    "/documents", status_code=202, responses=documented(400, 401, 403, 404, 408, 413, 422, 429, 507)
)
async def add(
    body: AdditionRequest, additions: AdditionsDep, writer: WriterDep, response: Response
) -> Addition:
    """Take documents, which are on the disk with the answer and in the index some time later."""
    taken = await asyncio.to_thread(additions.accept, body, by=writer.name, owners=writer.owners)
    response.headers["Location"] = f"/additions/{taken.id}"
    return taken


@router.get("/additions/{addition_id}", responses=documented(401, 403, 404, 422, 429))
async def addition(
    addition_id: Annotated[
        str,
        Path(description="Id of the addition.", examples=["01790812800000000000-0f3a9c5d"]),
    ],
    additions: AdditionsDep,
    writer: WriterDep,
) -> Addition:
    """What has become of documents that were taken: asked by the key that sent them."""
    return await asyncio.to_thread(additions.addition, addition_id, by=writer.name)
