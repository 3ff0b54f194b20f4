"""What the server adds to the model: throughput and latency, batches, cache, overload.

    python -m benchmarks.serving                       # small random model, about two minutes
    python -m benchmarks.serving --overload-s 600      # memory over ten minutes

A real server in a process of its own on localhost, and clients that keep their connections. The
model is small, so that the service and not the model is what is measured.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from indexer.build import build_index
from indexer.progress import Silence
from influence.manifest import IndexSettings
from influence.model import load_model

ROOT = Path(__file__).resolve().parents[1]
SERVER = (
    "from api.server import run; from service.settings import load_settings; "
    "run(load_settings(port=0, no_auth=True, device='cpu'))"
)
TEXT = "the a of and to in king queen river mountain city ship gold silver bread wine"
WORDS = TEXT.split()
UNBATCHED = {"WHENCE_BATCH_TOKENS": "1", "WHENCE_BATCH_WAIT_MS": "0"}
UNCACHED = {"WHENCE_CACHE_BYTES": "0"}
MODES = {"one by one": {**UNBATCHED, **UNCACHED}, "in batches": UNCACHED, "from the cache": {}}
CLIENTS = (1, 8, 32, 128)
OVERLOAD = 4  # times what the server can do
FLAT_MB = 16  # the allocator's own coming and going


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

    async def ask(self, number: int) -> tuple[int, float, bytes]:
        # A server may close a connection that nobody has used for some seconds.
        if self._streams is None or self._streams[0].at_eof():
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
        return int(head[9:12]), time.perf_counter() - begun, answer

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


@contextmanager
def serving(places: dict[str, str], **settings: str):
    """A server in a process of its own; its port and its process."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env={**os.environ, **places, **settings, "PYTHONPATH": str(ROOT)},
        cwd=tempfile.gettempdir(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(line.rsplit(":", 1)[1])
        asyncio.run(closed_loop(port, 4, 40, same=False))  # warm
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def prepare(folder: Path, hidden: int, records: int) -> dict[str, str]:
    """A random model and an index of random texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    ).save_pretrained(folder / "model")
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    lines = [
        json.dumps({"id": str(n), "text": " ".join(WORDS[(n * k) % 16] for k in range(1, 30))})
        for n in range(records)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    build_index(
        str(folder / "corpus.jsonl"),
        load_model(folder / "model", device="cpu"),
        folder / "index",
        IndexSettings(rank=8, dims=1024, max_length=96, fit_passages=64),
        reporter=Silence(),
    )
    return {"WHENCE_INDEX_DIR": str(folder / "index"), "WHENCE_MODEL": str(folder / "model")}


def resident_mb(process: subprocess.Popen) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def show(mode: str, clients: int, measured: Measured) -> None:
    percentiles = " | ".join(f"{measured.percentile(p):.1f}" for p in (50, 95, 99))
    print(f"| {mode} | {clients} | {measured.rate():.0f} | {percentiles} |", flush=True)


def rows(places: dict[str, str], requests: int) -> dict[tuple[str, int], Measured]:
    """Every mode at every number of clients."""
    print("| mode | clients | answers/s | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|---|")
    found = {}
    for mode, settings in MODES.items():
        with serving(places, WHENCE_QUEUE_SIZE="256", **settings) as (port, _):
            for clients in CLIENTS:
                same = mode == "from the cache"
                measured = asyncio.run(closed_loop(port, clients, requests, same=same))
                found[mode, clients] = measured
                show(mode, clients, measured)
    return found


@dataclass
class Overload:
    """What became of a server that is asked for four times what it can do."""

    capacity: float
    flood: Measured
    memory_mb: list[float]


def overload(places: dict[str, str], requests: int, seconds: float) -> Overload:
    with serving(places, WHENCE_QUEUE_SIZE="64", **UNCACHED) as (port, process):
        measured = asyncio.run(closed_loop(port, 32, 2 * requests, same=False))
        memory_mb: list[float] = []
        flood = asyncio.run(
            open_loop(
                port,
                OVERLOAD * measured.rate(),
                seconds,
                lambda: memory_mb.append(resident_mb(process)),
            )
        )
    return Overload(measured.rate(), flood, memory_mb)


def targets(found: dict[tuple[str, int], Measured], over: Overload) -> None:
    """What was promised and what was measured."""
    alone = found["in batches", 1]
    overhead_ms = alone.percentile(50) - alone.computed.percentile(50)
    ratio = found["in batches", 32].rate() / found["one by one", 32].rate()
    refused, third = len(over.flood.times[429]), len(over.memory_mb) // 3
    early = statistics.median(over.memory_mb[third : 2 * third] or over.memory_mb)
    late = statistics.median(over.memory_mb[2 * third :])
    goodput = over.flood.in_time / over.flood.took_s / over.capacity
    reject_ms = over.flood.percentile(99, 429) if refused else 0.0
    cached_ms = found["from the cache", 1].percentile(99)
    print(
        f"\nCapacity {over.capacity:.0f}/s, asked for {OVERLOAD * over.capacity:.0f}/s: "
        f"{len(over.flood.times[200])} answered, {refused} refused, other statuses "
        f"{sorted(set(over.flood.times) - {200, 429})}.\n\n| target | measured | |\n|---|---|---|"
    )
    for name, measured, met in (
        ("in batches ≥ 3 × one by one, 32 clients", f"{ratio:.2f} ×", ratio >= 3),
        ("beside the model ≤ 10 ms, p50, 1 client", f"{overhead_ms:.1f} ms", overhead_ms <= 10),
        ("from the cache ≤ 10 ms, p99, 1 client", f"{cached_ms:.1f} ms", cached_ms <= 10),
        ("answered ≥ 90 % of capacity at 4 ×", f"{goodput:.0%}", goodput >= 0.9),
        ("refused in < 50 ms, p99, at 4 ×", f"{reject_ms:.1f} ms", reject_ms < 50),
        ("memory flat at 4 ×", f"{early:.0f} MB, then {late:.0f} MB", late < early + FLAT_MB),
    ):
        print(f"| {name} | {measured} | {'met' if met else 'missed'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--records", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=400, help="of each row")
    parser.add_argument("--overload-s", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        places = prepare(Path(name), arguments.hidden, arguments.records)
        found = rows(places, arguments.requests)
        targets(found, overload(places, arguments.requests, arguments.overload_s))


if __name__ == "__main__":
    main()
