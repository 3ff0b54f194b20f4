"""The two clients: the same calls, one that waits and one to be awaited.

    with Client("https://whence.example", key=KEY) as whence:
        found = whence.attribute("Who wrote it?", "Ludwig van Beethoven.", top_k=3)
        for hit in found.proponents:
            print(hit.relative_influence, hit.title)

A call goes on until `timeout_s` is over: a server that is busy or restarting is asked again, no
sooner than its `Retry-After` says. What remains of the time is sent along, so that the server does
not work on what nobody will read.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Generic, TypeVar, Unpack

import httpx2
from pydantic import BaseModel

from service.schemas import (
    AttributeRequest,
    AttributeResult,
    BatchResult,
    DocumentResult,
    ServiceInfo,
)
from service.sent import Addition, SentDocument
from whence_client import calls
from whence_client.calls import Call, Options
from whence_client.failures import ServerUnreachable, problem_of
from whence_client.patience import Patience

Result = TypeVar("Result", bound=BaseModel)
Http = TypeVar("Http", httpx2.Client, httpx2.AsyncClient)

_TIMEOUT_S = 60.0


class _Connection(Generic[Http]):
    """What both clients are: where the server is, the key, and how long to try.

    Args:
        base_url: Where the server is.
        key: The API key; None where it runs without.
        timeout_s: For one call, over all its tries.
        retry: Whether a server that is busy or restarting is asked again.
    """

    _kind: type[Http]

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeout_s: float = _TIMEOUT_S,
        retry: bool = True,
    ) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = self._kind(base_url=base_url, headers=headers)
        self._timeout_s = timeout_s
        self._retry = retry

    def _patience(self, call: Call[Result]) -> Patience:
        return Patience(self._timeout_s, retry=self._retry, repeatable=call.repeatable)

    def _final(
        self, response: httpx2.Response | None, failure: httpx2.TransportError | None
    ) -> Exception:
        if response is not None:
            return problem_of(response)
        return ServerUnreachable(
            f"No answer from {self._http.base_url}: {failure!r}. Check the address, and that the "
            "server runs."
        )


class Client(_Connection[httpx2.Client]):
    """Calls that wait for their answer; for several threads."""

    _kind = httpx2.Client

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def attribute(self, prompt: str, response: str, **options: Unpack[Options]) -> AttributeResult:
        """Rank the training passages that most influenced a response.

        Raises:
            ValueError: A bound is broken; nothing was sent.
            WhenceProblem: The server refused or failed.
            ServerUnreachable: No answer within `timeout_s`.
        """
        return self.call(calls.attribute(prompt, response, options))

    def attribute_batch(self, requests: Sequence[AttributeRequest]) -> BatchResult:
        """Attribute several; each item has a result or a problem. Raises as `attribute`."""
        return self.call(calls.attribute_batch(requests))

    def document(self, document_id: str) -> DocumentResult:
        """A document as it was indexed. Raises as `attribute`."""
        return self.call(calls.document(document_id))

    def add_documents(
        self, documents: Sequence[SentDocument], *, replace: bool = False
    ) -> Addition:
        """Send documents to be added; they are on the server's disk when this returns.

        They are in the index some time later: `addition` tells. A call whose answer was lost is
        not sent again, since the documents may have been taken. Raises as `attribute`.
        """
        return self.call(calls.add_documents(documents, replace=replace))

    def addition(self, addition_id: str) -> Addition:
        """What has become of documents that were sent. Raises as `attribute`."""
        return self.call(calls.addition(addition_id))

    def attribution(self, request_id: str) -> AttributeResult:
        """The attribution of what was answered under a request id. Raises as `attribute`."""
        return self.call(calls.attribution(request_id))

    def info(self) -> ServiceInfo:
        """What is being served. Raises as `attribute`."""
        return self.call(calls.info())

    def call(self, call: Call[Result]) -> Result:
        """Any call of `whence_client.calls`. Raises as `attribute`."""
        patience = self._patience(call)
        while True:
            response, failure = None, None
            try:
                response = self._http.send(
                    _request(self._http, call, patience), follow_redirects=False
                )
            except httpx2.TransportError as error:
                failure = error
            if response is not None and response.is_success:
                return call.parse(response.content)
            wait_s = patience.wait_s(response, failure)
            if wait_s is None:
                raise self._final(response, failure) from failure
            time.sleep(wait_s)


class AsyncClient(_Connection[httpx2.AsyncClient]):
    """Calls to be awaited; otherwise as `Client`."""

    _kind = httpx2.AsyncClient

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def attribute(
        self, prompt: str, response: str, **options: Unpack[Options]
    ) -> AttributeResult:
        """See `Client.attribute`."""
        return await self.call(calls.attribute(prompt, response, options))

    async def attribute_batch(self, requests: Sequence[AttributeRequest]) -> BatchResult:
        """See `Client.attribute_batch`."""
        return await self.call(calls.attribute_batch(requests))

    async def document(self, document_id: str) -> DocumentResult:
        """See `Client.document`."""
        return await self.call(calls.document(document_id))

    async def add_documents(
        self, documents: Sequence[SentDocument], *, replace: bool = False
    ) -> Addition:
        """See `Client.add_documents`."""
        return await self.call(calls.add_documents(documents, replace=replace))

    async def addition(self, addition_id: str) -> Addition:
        """See `Client.addition`."""
        return await self.call(calls.addition(addition_id))

    async def attribution(self, request_id: str) -> AttributeResult:
        """See `Client.attribution`."""
        return await self.call(calls.attribution(request_id))

    async def info(self) -> ServiceInfo:
        """See `Client.info`."""
        return await self.call(calls.info())

    async def call(self, call: Call[Result]) -> Result:
        """See `Client.call`."""
        patience = self._patience(call)
        while True:
            response, failure = None, None
            try:
                response = await self._http.send(
                    _request(self._http, call, patience), follow_redirects=False
                )
            except httpx2.TransportError as error:
                failure = error
            if response is not None and response.is_success:
                return call.parse(response.content)
            wait_s = patience.wait_s(response, failure)
            if wait_s is None:
                raise self._final(response, failure) from failure
            await asyncio.sleep(wait_s)


def _request(
    http: "httpx2.Client | httpx2.AsyncClient", call: Call[Result], patience: Patience
) -> httpx2.Request:
    left_s = patience.left_s
    headers = {"X-Request-Timeout-Ms": str(max(1, int(1e3 * left_s))), **call.headers}
    content = None
    if call.body is not None:
        content = call.body.model_dump_json(exclude_none=True)
        headers["Content-Type"] = "application/json"
    return http.build_request(
        call.method, call.path, content=content, headers=headers, timeout=left_s
    )
