"""What goes through the queue between an API without a model and its workers.

streaq keeps the jobs in a Redis stream: a worker claims one, renews its claim while it lives and
acknowledges it with the answer; a job whose worker has died is claimed by another one. Requests,
answers and errors are JSON. Importing this module loads neither torch nor faiss.
"""

import inspect
import json
import math
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict
from streaq import Worker
from streaq.task import AsyncRegisteredTask

from influence import errors
from influence.errors import AttributionError, ServiceUnavailable
from service.attributor import Serving
from service.schemas import ServiceInfo

MAX_TRIES = 2  # a job whose worker died is tried once more, and no more
SET_ASIDE = "whence:set-aside"  # jobs that ended two workers, or that failed unexpectedly
WORKERS = "whence:workers"  # ids of the workers that were seen
BEAT_S = 1.0  # how often a worker says what it serves
BEAT_TTL_S = 5  # a worker that was silent for so long is not counted

_ANSWER_TTL_S = 60  # for a replica that was away when the answer came
_CONNECTIONS = 512
# A job says what it wants; the answer is {"answer": …} or {"error": …}.
Handler = Callable[[str, str], Coroutine[Any, Any, dict[str, Any]]]
Job = AsyncRegisteredTask[[str, str], dict[str, Any]]


class Beat(BaseModel):
    """What a worker says of itself every second."""

    model_config = ConfigDict(frozen=True)

    serving: Serving
    info: ServiceInfo
    seconds_per_request: float


@dataclass(frozen=True)
class Terms:
    """What both sides must agree on.

    Attributes:
        expire_s: After which a job is not wanted any more.
        dead_after_s: A worker that did not renew its claims for so long is dead.
    """

    expire_s: float
    dead_after_s: float


def new_queue(
    redis_url: str,
    handler: Handler,
    terms: Terms,
    *,
    concurrency: int = 1,
    lifespan: Callable[[], Any] = nullcontext,
) -> tuple[Worker[Any], Job]:
    """The queue, and the one kind of job in it.

    Args:
        redis_url: Where it is.
        handler: Does a job; never called by a replica of the API.
        terms: Those of both sides; a worker that is told to end goes on for `expire_s` at most.
        concurrency: Jobs that a worker has at a time, which is what its batches are made of.
        lifespan: What runs around a worker.
    """
    queue: Worker[Any] = Worker(
        redis_url,
        redis_kwargs={"max_connections": _CONNECTIONS},
        concurrency=concurrency,
        prefetch=1,
        queue_name="whence",
        serializer=_to_json,
        deserializer=json.loads,
        idle_timeout=terms.dead_after_s,
        grace_period=math.ceil(terms.expire_s),
        lifespan=lifespan,
    )
    register = queue.task(
        name="job",
        expire=timedelta(seconds=terms.expire_s),
        max_tries=MAX_TRIES + 1,  # the last of them sets the job aside with its cause
        silent=True,
        ttl=_ANSWER_TTL_S,
    )
    return queue, register(handler)


def _to_json(value: Any) -> str:
    return json.dumps(value, default=str)


def error_to_wire(error: AttributionError) -> dict[str, Any]:
    """An error of ours, for the other side."""
    wait = error.retry_after_s if isinstance(error, ServiceUnavailable) else None
    return {"kind": type(error).__name__, "message": str(error), "retry_after_s": wait}


def error_from_wire(wire: dict[str, Any]) -> AttributionError:
    """The same error here; one of a kind that only the other side knows is the base of all."""
    kind = getattr(errors, str(wire["kind"]), None)
    if not (inspect.isclass(kind) and issubclass(kind, AttributionError)):
        kind = AttributionError
    error = kind.__new__(kind, wire["message"])  # past constructors, which write messages
    error.args = (wire["message"],)
    if isinstance(error, ServiceUnavailable):
        error.retry_after_s = wire["retry_after_s"]
    return error
