"""Clients of a server on this machine, as many at once as are wanted, and what they measured.

They keep their connections and use the standard library alone, so that they take as little as can
be of the processor that they share with the server.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

IDLE_S = 2.0  # before the server closes a connection that nobody uses, which it does after five


class Times:
    """Milliseconds to three digits, counted: as much memory for a million as for a thousand."""

    def __init__(self) -> None:
        self._counts: Counter[float] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, milliseconds: float) -> None:
        self._counts[float(f"{milliseconds:.3g}")] += 1

    def percentile(self, percent: float) -> float:
        left = min(len(self) - 1, int(len(self) * percent / 100))
        for milliseconds, count in sorted(self._counts.items()):
            left -= count
            if left < 0:
                return milliseconds
        raise ValueError("nothing was measured")


@dataclass
class Measured:
    """How long the answers took, by their status."""

    times: defaultdict[int, Times] = field(default_factory=lambda: defaultdict(Times))
    computed: Times = field(default_factory=Times)
    took_s: float = 0.0
    in_time: int = 0  # answered while requests came, where they come at a rate

    def add(self, status: int, seconds: float, body: bytes) -> None:
        self.times[status].add(1e3 * seconds)
        if status == 200:
            timings = json.loads(body)["timings_ms"]
            self.computed.add(timings["gradient"] + timings["search"] + timings["fetch"])

    def rate(self, status: int = 200) -> float:
        return len(self.times[status]) / self.took_s

    def percentile(self, percent: float, status: int = 200) -> float:
        return self.times[status].percentile(percent)


class Client:
    """One connection, kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._answered_at = 0.0

    async def ask(self, number: int) -> tuple[int, float, bytes]:
        if self._streams is None or time.perf_counter() - self._answered_at > IDLE_S:
            self.close()
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        body = json.dumps(
            {"prompt": f"who is number {number}?", "response": "the king of the river", "top_k": 3}
        ).encode()
        begun = time.perf_counter()
        writer.write(
            b"POST /attribute HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r")[0])
        answer = await reader.readexactly(length)
        self._answered_at = time.perf_counter()
        return int(head[9:12]), self._answered_at - begun, answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def closed_loop(port: int, clients: int, requests: int, *, same: bool) -> Measured:
    """Clients that ask again as soon as they are answered."""
    measured, numbers = Measured(), iter(range(requests))
    first = time.time_ns() % 10**9  # so that no run meets the answers of another

    async def one() -> None:
        client = Client(port)
        for number in numbers:
            measured.add(*await client.ask(0 if same else first + number))
        client.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    measured.took_s = time.perf_counter() - begun
    return measured


async def open_loop(port: int, per_second: float, seconds: float, memory) -> Measured:
    """Requests that come at a rate, whatever becomes of those before.

    `memory` is called once a second. What is kept here grows with the requests that are under way
    at once, and not with the time.
    """
    measured, free = Measured(), []
    first = time.time_ns() % 10**9

    async def one(number: int) -> None:
        client = free.pop() if free else Client(port)
        measured.add(*await client.ask(first + number))
        free.append(client)

    begun = time.perf_counter()
    number = looks = 0
    async with asyncio.TaskGroup() as asking:  # a request without an answer ends the measurement
        while (now := time.perf_counter() - begun) < seconds:
            while number < now * per_second:
                asking.create_task(one(number))
                number += 1
            if now >= looks:
                memory()
                looks += 1
            await asyncio.sleep(0.005)
        measured.took_s = time.perf_counter() - begun
        measured.in_time = len(measured.times[200])  # what is answered later is no goodput
    for client in free:
        client.close()
    return measured
