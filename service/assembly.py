"""From settings to what attributes: in this process, or by workers over a queue.

Importing this module loads neither torch nor faiss.
"""

import asyncio
import gc
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from influence.errors import InvalidInput
from influence.remote import is_url
from service.adding import Adder
from service.additions import Additions
from service.attributor import Attributor
from service.cache import Cache, MemoryCache, RedisCache
from service.caching import CachingAttributor
from service.chat.chat import Chat
from service.chat.local import LocalChat
from service.exchanges import Exchanges
from service.local import LocalAttributor
from service.metrics import Metrics
from service.rates import OwnRates, Rates
from service.settings import Settings
from service.shared_rates import SharedRates
from service.versions import ServedVersions

if TYPE_CHECKING:
    from service.engine import Engine
    from service.jobs import Terms

_JOBS_OF_A_WORKER = 32


@dataclass(frozen=True)
class Parts:
    """What a server is made of.

    Attributes:
        attributor: Answers, its cache in front.
        versions: Follow its index; None where workers do.
        chat: Writes answers; None: nobody does.
        exchanges: What was asked lately.
    """

    attributor: Attributor
    versions: ServedVersions | None
    chat: Chat | None
    exchanges: Exchanges


def assemble(settings: Settings, metrics: Metrics, *, elsewhere: Attributor | None = None) -> Parts:
    """What a server of these settings is made of; nothing is loaded yet.

    Args:
        settings: Of the deployment.
        metrics: Where it is counted.
        elsewhere: Attributes in place of an engine here.

    Raises:
        InvalidInput: A queue is wanted and no Redis is named.
    """
    cache = _cache(settings)
    exchanges = Exchanges(cache, ttl_s=settings.cache_ttl_s)
    if elsewhere is not None:
        attributor = CachingAttributor(elsewhere, cache)
        return Parts(attributor, None, _chat(settings, None), exchanges)
    if settings.queue:
        attributor = CachingAttributor(_by_workers(settings, metrics), cache)
        return Parts(attributor, None, _chat(settings, None), exchanges)
    local, versions = new_local_attributor(settings, metrics)
    return Parts(CachingAttributor(local, cache), versions, _chat(settings, local), exchanges)


def new_local_attributor(
    settings: Settings, metrics: Metrics
) -> tuple[LocalAttributor, ServedVersions]:
    """The engine in this process, and what follows its index."""
    local = LocalAttributor(
        lambda: _load(settings, metrics),
        queue_size=settings.queue_size,
        batch_tokens=settings.batch_tokens,
        batch_wait_s=settings.batch_wait_ms / 1e3,
        metrics=metrics,
    )
    return local, ServedVersions(settings.index_dir, local, follow_s=settings.follow_s)


def new_rates(settings: Settings) -> Rates:
    """Where it is counted how often each key asks: here, or in the Redis that replicas share."""
    return OwnRates() if settings.redis_url is None else SharedRates(settings.redis_url)


def new_additions(settings: Settings) -> Additions | None:
    """Where documents are kept that are sent to be added; None: none are taken."""
    return None if settings.additions_dir is None else Additions(settings.additions_dir)


def new_adder(settings: Settings) -> Adder | None:
    """What adds them, in a process that has the index; None where there is nothing to do.

    Raises:
        InvalidInput: The index is at a URL, where nothing is changed.
    """
    additions = new_additions(settings)
    if additions is None:
        return None
    if is_url(settings.index_dir):
        raise InvalidInput(
            f"Documents cannot be added to {settings.index_dir}, which is read from a URL. Add "
            "them where the index is kept and use `whence push`, or unset WHENCE_ADDITIONS_DIR."
        )
    index_dir = Path(settings.index_dir)

    def command(corpus: Path, replace: bool) -> Sequence[str]:
        model = [] if settings.model is None else ["--model", settings.model]
        if (trusted := settings.trust_remote_code) is not None:
            model += ["--trust-remote-code", trusted]
        options = [*model, "--device", settings.device, *(["--replace"] if replace else [])]
        # A program of its own: what serves knows nothing of how an index is made.
        program = [sys.executable, "-m", "cli.main", "add"]
        return [*program, *options, "--", str(index_dir), str(corpus)]

    return Adder(additions, index_dir, command)


def freeze_what_is_loaded() -> None:
    """Tell the garbage collector that what is there now stays; once, when all is loaded and warm.

    Modules, model and index are some 400,000 objects that never become garbage. Each full
    collection would look at all of them, and nothing else runs for up to half a second.
    """
    gc.collect()
    gc.freeze()


def run_worker(settings: Settings) -> None:
    """Load the engine and do jobs until told to end; one line says when it is ready.

    Raises:
        InvalidInput: No Redis is named.
        AddressUnavailable: The port of the metrics is taken.
        AttributionError: Model or index cannot be loaded.
    """
    redis_url, metrics = _redis_url(settings), Metrics()
    port = settings.metrics_port
    with nullcontext() if port is None else metrics.exported(settings.host, port):
        asyncio.run(_work(settings, redis_url, metrics))


async def _work(settings: Settings, redis_url: str, metrics: Metrics) -> None:
    from service.worker import QueueWorker

    attributor, versions = new_local_attributor(settings, metrics)
    adder = new_adder(settings)
    await attributor.start()
    await versions.start()
    try:
        info = await attributor.wait_loaded()
        freeze_what_is_loaded()
        worker = QueueWorker(
            attributor,
            redis_url,
            _terms(settings),
            concurrency=_JOBS_OF_A_WORKER,
            metrics=metrics,
        )
        if adder is not None:
            await adder.start()
        print(f"Whence works on the index {info.index.id}", flush=True)
        await worker.run()
    finally:
        if adder is not None:
            await adder.close()
        await versions.close()
        await attributor.close()


def _by_workers(settings: Settings, metrics: Metrics) -> Attributor:
    from service.queue import QueueAttributor

    return QueueAttributor(
        _redis_url(settings), _terms(settings), queue_size=settings.queue_size, metrics=metrics
    )


def _redis_url(settings: Settings) -> str:
    if settings.redis_url is None:
        raise InvalidInput(
            "A queue needs a Redis, and none is named. Set WHENCE_REDIS_URL, such as "
            "redis://localhost:6379/0, or serve without --queue."
        )
    return settings.redis_url


def _terms(settings: Settings) -> "Terms":
    from service.jobs import Terms

    return Terms(settings.request_timeout_s, settings.worker_dead_after_s)


def _chat(settings: Settings, local: LocalAttributor | None) -> Chat | None:
    at_once = settings.chat_at_once
    if at_once == 0:
        return None
    if settings.chat_upstream is not None:
        from service.chat.upstream import UpstreamChat

        secret = settings.chat_upstream_key
        key = None if secret is None else secret.get_secret_value()
        return UpstreamChat(settings.chat_upstream, key=key, at_once=at_once)
    if local is None:
        return None
    return LocalChat(local, at_once=at_once, max_tokens=settings.chat_max_tokens)


def _cache(settings: Settings) -> Cache:
    if settings.redis_url is None:
        return MemoryCache(settings.cache_bytes)
    return RedisCache(settings.redis_url, ttl_s=settings.cache_ttl_s)


def _load(settings: Settings, metrics: Metrics) -> "Engine":
    # Imported in the model's thread: torch takes seconds, and /livez shall answer meanwhile.
    from service.engine import Engine

    metrics.watch_gpu()
    return Engine.load(
        settings.index_dir,
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        search_memory_bytes=settings.search_memory_bytes,
        search=settings.search,
        search_min_recall=settings.search_min_recall,
        max_query_tokens=settings.max_query_tokens,
        trust_remote_code=settings.trust_remote_code,
    )
