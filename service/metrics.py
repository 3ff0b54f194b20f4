"""What Prometheus is told; every name and label in one place.

Times are in seconds, sizes in bytes. A label never holds what a caller made up, so the number of
series is bounded. Importing this module loads neither torch nor faiss.
"""

import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    start_http_server,
)

from influence.errors import AddressUnavailable
from service.batching import Size
from service.schemas import AttributeResult, ServiceInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128)
_RECENT = 32  # attributions of which the median is what the next one is expected to take
_TOKENS = (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)


class Metrics:
    """The metrics of one process; two of them share nothing."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"whence_{name}", says, labels, registry=registry)

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"whence_{name}", says, labels, registry=registry)

        def histogram(name: str, says: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"whence_{name}", says, labels, buckets=buckets, registry=registry)

        self.requests = counter("requests", "Answered requests.", "method", "route", "status")
        self.request_seconds = histogram(
            "request_seconds",
            "From the head of a request to the end of its answer.",
            _SECONDS,
            "route",
        )
        self.in_flight = gauge("requests_in_flight", "Requests being answered.")
        self.rejected = counter("rejected", "Requests refused, by the kind of problem.", "reason")
        self.queue_depth = gauge("queue_depth", "Attributions that wait for the model.")
        self.queue_jobs = gauge(
            "queue_jobs", "Jobs in the queue in Redis, waiting or under way, of all replicas."
        )
        self.queue_wait_seconds = histogram(
            "queue_wait_seconds", "Waiting for the model, of each attribution.", _SECONDS
        )
        self.batch_requests = histogram("batch_requests", "Attributions of a batch.", _REQUESTS)
        self.batch_tokens = histogram("batch_tokens", "Tokens of a batch, padded.", _TOKENS)
        self.gradient_seconds = histogram(
            "gradient_seconds", "Tokens, forward and backward pass, of each attribution.", _SECONDS
        )
        self.search_seconds = histogram(
            "search_seconds", "Comparing with the index, of each attribution.", _SECONDS
        )
        self.fetch_seconds = histogram(
            "fetch_seconds", "Reading texts, of each attribution.", _SECONDS
        )
        self.cache_hits = counter("cache_hits", "Attributions answered from the cache.")
        self.cache_misses = counter("cache_misses", "Attributions that had to be computed.")
        self.ready = gauge("ready", "1 when loaded, warm and not draining.")
        self.index_rows = gauge("index_rows", "Passages of the index that is served.")
        self.index_version = gauge("index_version", "1 for the version served.", "index", "version")
        self.gpu_memory_bytes = gauge("gpu_memory_bytes", "Memory of the GPU in use; 0 without.")

        self._recent_ms: deque[float] = deque(maxlen=_RECENT)

    @property
    def expected_ms(self) -> float | None:
        """What recent attributions took, waiting included, as a median; None: there was none."""
        return statistics.median(self._recent_ms) if self._recent_ms else None

    def answered(self, result: AttributeResult) -> None:
        """Count an attribution that was answered."""
        if result.cached:
            self.cache_hits.inc()
            return
        self.cache_misses.inc()
        timings = result.timings_ms
        if not timings.explain:  # which most do without
            self._recent_ms.append(
                timings.queue + timings.gradient + timings.search + timings.fetch
            )
        self.queue_wait_seconds.observe(timings.queue / 1e3)
        self.gradient_seconds.observe(timings.gradient / 1e3)
        self.search_seconds.observe(timings.search / 1e3)
        self.fetch_seconds.observe(timings.fetch / 1e3)

    def batched(self, sizes: Sequence[Size]) -> None:
        """Count a batch that goes through the model."""
        self.batch_requests.observe(len(sizes))
        tokens = sum(size.rows for size in sizes) * max(size.longest for size in sizes)
        self.batch_tokens.observe(tokens)

    def serves(self, info: ServiceInfo | None) -> None:
        """Say what is being served now; None: nothing yet, or nothing more."""
        self.ready.set(0 if info is None else 1)
        self.index_version.clear()
        if info is not None:
            self.index_rows.set(info.index.passages)
            self.index_version.labels(info.index.id, info.index.version).set(1)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Ask for the depth of the queue whenever the metrics are read."""
        self.queue_depth.set_function(depth)

    def watch_gpu(self) -> None:
        """Ask for the memory that tensors take whenever the metrics are read; loads torch."""
        import torch

        if torch.cuda.is_available():
            self.gpu_memory_bytes.set_function(torch.cuda.memory_allocated)

    @contextmanager
    def exported(self, host: str, port: int) -> Iterator[int]:
        """Tell them at ``http://host:port/metrics`` inside the block, from a thread; the port.

        For a process that serves nothing else.

        Raises:
            AddressUnavailable: The port is taken, or the address is none of this machine.
        """
        try:
            server, thread = start_http_server(port, host, self._registry)
        except OSError as error:
            raise AddressUnavailable(
                f"The metrics cannot be told on {host}:{port}: {error.strerror or error}. Choose "
                "another WHENCE_METRICS_PORT or WHENCE_HOST."
            ) from error
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def exposition(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
