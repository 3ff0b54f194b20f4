"""What a refusal costs: CPU time of the server for each 429, with the queue full.

    python -m benchmarks.refusals

The application and its HTTP server as they are, in front of an engine that does not end; one client
in another process, on one connection. CPU time, so that a busy machine says much the same.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from api.app import create_app
from api.connections import listen, new_server
from service.attributor import Serving
from service.batching import Size
from service.cache import MemoryCache
from service.caching import CachingAttributor
from service.local import LocalAttributor
from service.schemas import AttributeRequest, IndexReference

if TYPE_CHECKING:
    from service.engine import Engine


@dataclass
class Held:
    """Stands where an engine is, and answers nothing until it is let go."""

    go: threading.Event
    size = Size(1, 20)
    serving = Serving(
        index=IndexReference(id="none", version="none", exact=True),
        weights_sha256="",
        tokenizer_sha256="",
        dtype="float32",
        program="",
    )

    def __hash__(self) -> int:
        return id(self)

    def read(self, _request: AttributeRequest, *, request_id: str) -> "Held":
        return self

    def attribute_many(self, asked: Sequence["Held"]) -> list[Exception]:
        self.go.wait()
        return [RuntimeError("let go")] * len(asked)

    def close(self) -> None:
        """It holds nothing."""


def ask(port: int, requests: int) -> None:
    """Ask on one connection; each is refused."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for number in range(requests):
        body = json.dumps({"prompt": f"who is number {number}?", "response": "the king"})
        connection.request("POST", "/attribute", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 429:
            raise RuntimeError(f"number {number} was answered with {answer.status}, not refused")


async def measure(requests: int) -> float:
    """Milliseconds of CPU that this process takes for a refusal."""
    go = threading.Event()
    local = LocalAttributor(lambda: cast("Engine", Held(go)), queue_size=1, batch_tokens=20)
    with listen("127.0.0.1", 0) as listening:
        server = new_server(create_app(CachingAttributor(local, MemoryCache(0))))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not local.ready:
            await asyncio.sleep(0.01)
        question = AttributeRequest(prompt="who?", response="the king")
        waiting = []
        for number in range(2):  # one that is computed, one that waits
            waiting.append(asyncio.create_task(local.attribute(question, request_id=str(number))))
            await asyncio.sleep(0.5)
        client = multiprocessing.get_context("spawn").Process(
            target=ask, args=(listening.getsockname()[1], requests)
        )
        client.start()
        begun = time.process_time()
        await asyncio.to_thread(client.join)
        took_s = time.process_time() - begun
        go.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        server.should_exit = True
        await serving
    if client.exitcode != 0:
        raise RuntimeError("the client failed; what it said is above")
    return 1e3 * took_s / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2_000)
    given = parser.parse_args()
    print(f"{asyncio.run(measure(given.requests)):.2f} ms of CPU a refusal")


if __name__ == "__main__":
    main()
