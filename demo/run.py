"""The demo from nothing to a checked index: model, corpus, fine-tune, index, self-check.

Each step is found again under a name made of its inputs, so a second run does nothing twice, and a
run that was killed continues after its last finished step (within the index: its last shard).
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from demo.cache import fingerprint, locked
from demo.corpus import build_corpus
from demo.model import prepare_model
from demo.records import Record
from demo.settings import FinetuneSettings, index_settings
from indexer.progress import Reporter
from influence.atomic import file_sha256, write_bytes
from influence.errors import BuildConflict, IndexUnavailable
from influence.manifest import IndexSettings
from influence.store import IndexReader
from influence.transfer import default_cache_dir

SEARCH_MEMORY_BYTES = 2**30


@dataclass(frozen=True)
class Demo:
    """What a server needs, and what the self-check found (`demo.selfcheck.SelfCheck.as_json`)."""

    model_dir: Path
    index_dir: Path
    self_check: dict[str, Any]


def run_demo(
    cache_dir: Path | None = None, *, device: str = "auto", reporter: Reporter | None = None
) -> Demo:
    """Prepare everything that is not there yet; a second run only looks.

    Args:
        cache_dir: Where all of it is kept; `default_cache_dir` by default.
        device: ``auto``, ``cpu``, ``cuda``.
        reporter: Told what is being done.

    Raises:
        ModelUnavailable: The package with the model is not installed.
        SelfCheckFailed: The attribution misses its bar.
        BuildConflict: Another process prepares the demo in the same cache.
        StorageFull: The cache cannot be written.
    """
    cache = default_cache_dir() if cache_dir is None else cache_dir
    reporter = reporter or Reporter()
    begun = time.monotonic()
    with locked(cache):
        reporter.note(f"The demo is kept in {cache}.")
        base = prepare_model(cache)
        corpus = cache / "corpus.jsonl"
        records = build_corpus(corpus)
        finetune_settings = FinetuneSettings()
        settings = index_settings(base, finetune_settings)
        inputs = {
            "whence": version("whence"),
            "model": base.name,
            "corpus": file_sha256(corpus),
            "finetune": asdict(finetune_settings),
            "index": settings.model_dump(mode="json"),
        }
        ready = cache / f"ready-{fingerprint(inputs)}.json"
        demo = _remembered(ready)
        if demo is not None:
            reporter.note("Model, index and self-check are there already.")
            return demo
        demo, index_version = _prepare(
            cache, base, corpus, records, finetune_settings, settings, device, reporter
        )
        described = {
            "model_dir": str(demo.model_dir),
            "index_dir": str(demo.index_dir),
            "version": index_version,
            "self_check": demo.self_check,
        }
        write_bytes(ready, json.dumps(described, indent=2).encode())
    reporter.note(f"The demo was prepared in {time.monotonic() - begun:.0f} s.")
    return demo


def _prepare(
    cache: Path,
    base: Path,
    corpus: Path,
    records: Sequence[Record],
    finetune_settings: FinetuneSettings,
    settings: IndexSettings,
    device: str,
    reporter: Reporter,
) -> tuple[Demo, str]:
    """Fine-tune, index and check; the demo and the version of its index."""
    # Torch and its friends take seconds to load; a demo that is ready does not wait for them.
    from demo.finetune import finetune
    from demo.selfcheck import self_check
    from demo.session import Session
    from indexer.build import build_index
    from influence.model import load_model

    reporter.note(f"Corpus: {len(records)} records; fine-tuning the model on them.")
    model_dir = finetune(base, corpus, cache, finetune_settings, device=device, reporter=reporter)
    loaded = load_model(model_dir, device=device)
    index_dir = cache / "demo"
    reporter.note("Indexing the same records.")
    try:
        index_version = build_index(str(corpus), loaded, index_dir, settings, reporter=reporter)
    except BuildConflict:  # of another demo's settings, which nobody will finish
        index_version = build_index(
            str(corpus), loaded, index_dir, settings, reporter=reporter, restart=True
        )
    reporter.note("Checking that the index explains the model.")
    with Session(index_dir, loaded, search_memory_bytes=SEARCH_MEMORY_BYTES) as session:
        found = self_check(session.attribute, session.generate, records, reporter=reporter)
    return Demo(model_dir, index_dir, found.as_json()), index_version


def _remembered(ready: Path) -> Demo | None:
    """A demo that was prepared from the same inputs, if its files are still those."""
    if not ready.is_file():
        return None
    described = json.loads(ready.read_text(encoding="utf-8"))
    demo = Demo(Path(described["model_dir"]), Path(described["index_dir"]), described["self_check"])
    try:
        current = IndexReader.open(demo.index_dir).version
    except IndexUnavailable:
        return None
    return demo if current == described["version"] and demo.model_dir.is_dir() else None
