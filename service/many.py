"""Several attributions asked for at once, each of them a request like any other."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from influence.errors import AttributionError, ServiceUnavailable
from service.attributor import Attributes
from service.schemas import AttributeRequest, AttributeResult


async def attribute_each(
    attributor: Attributes,
    requests: Sequence[AttributeRequest],
    *,
    request_id: str,
    admit: Callable[[], Awaitable[None]],
) -> "list[AttributeResult | AttributionError]":
    """An answer or an error for each request, in their order.

    Each takes its own place in the queue and counts for the rate of its key, so that many asked for
    at once are not let in where one by one they would be refused.

    Args:
        attributor: Answers them.
        requests: What is asked; the first has been counted already, as the call that brought them.
        request_id: Of that call.
        admit: Counts one more, or raises why not.

    Raises:
        ServiceUnavailable: Not one of them could be served now.
    """

    async def one(number: int, request: AttributeRequest) -> AttributeResult:
        if number > 0:
            await admit()
        return await attributor.attribute(request, request_id=f"{request_id}.{number}")

    tasks = [asyncio.ensure_future(one(number, request)) for number, request in enumerate(requests)]
    try:
        await asyncio.wait(tasks)
    finally:
        for task in tasks:  # where the caller has gone; else they are done
            task.cancel()
    outcomes = [_outcome(task) for task in tasks]
    unavailable = [one for one in outcomes if isinstance(one, ServiceUnavailable)]
    if len(unavailable) == len(outcomes):
        raise unavailable[0]
    return outcomes


def _outcome(
    task: "asyncio.Future[AttributeResult]",
) -> AttributeResult | AttributionError:
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, AttributionError):
        return error
    raise error
