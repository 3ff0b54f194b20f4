"""Killed at any moment and run again, a build ends with the same files as one left in peace."""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.progress import Silence
from influence.manifest import IndexSettings
from influence.store import IndexReader

KILLS = 20  # at random moments, and half as many at random operations on files
PASSAGES = 200
pytestmark = pytest.mark.timeout(900)  # a busy machine makes every one of these builds slow
SETTINGS = IndexSettings(
    rank=4,
    dims=64,
    max_length=32,
    batch_tokens=1024,
    shard_passages=16,
    fit_passages=32,
    null_queries=4,
)


def _tree(folder: Path) -> dict[str, bytes]:
    """All files but the locks, which say who held them last."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory, new_llama, tokenizer, as_loaded):
    """A function that builds into a folder which already has a version; the folder to start from,
    and the folder in which such a build was left in peace."""
    folder = tmp_path_factory.mktemp("resume")
    generator = np.random.default_rng(1)
    words = np.array(["king", "queen", "river", "ship", "gold", "war", "peace", "north"])
    records = [
        {
            "id": f"d{i}",
            "text": " ".join(generator.choice(words, size=8)),
            "owner": ("Lincoln", "Grant")[i % 2],
        }
        for i in range(PASSAGES)
    ]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(record) + "\n" for record in records))
    loaded = as_loaded(new_llama(num_hidden_layers=1, hidden_size=16), tokenizer)

    def build(index_dir: Path, **changes) -> None:
        settings = SETTINGS.model_copy(update=changes)
        build_index(str(corpus), loaded, index_dir, settings, reporter=Silence())

    build(folder / "start", damping=0.5)
    shutil.copytree(folder / "start", folder / "whole")
    build(folder / "whole")
    built = IndexReader.open(folder / "whole")
    assert len(built) >= PASSAGES
    assert built.manifest.calibration.null_best_z
    return build, folder / "start", folder / "whole"


def _assert_readable(index_dir: Path, versions: set[str]) -> None:
    """A reader sees the old version or the new one, at whatever moment the builder died."""
    reader = IndexReader.open(index_dir)
    reader.verify()
    assert reader.version in versions


def _run_to_the_end(start, whole, folder, attempt) -> int:
    """Attempts, killed or not, until one comes through; how many were killed."""
    versions = {IndexReader.open(start).version, IndexReader.open(whole).version}
    shutil.copytree(start, folder)
    killed = 0
    while (code := attempt(folder)) != 0:
        assert code == -signal.SIGKILL
        _assert_readable(folder, versions)
        killed += 1
        assert killed < 200, "the build makes no progress"
    assert _tree(folder) == _tree(whole)
    shutil.rmtree(folder)
    return killed


@pytest.mark.slow
def test_killed_at_random_moments(work, start_in_child, tmp_path):
    build, start, whole = work
    begin, end = start_in_child
    chance = random.Random(0)
    begun = time.monotonic()
    shutil.copytree(start, tmp_path / "timed")
    assert end(*begin(lambda: build(tmp_path / "timed"))) == (0, "")
    duration = time.monotonic() - begun

    def attempt(folder: Path) -> int:
        child, words = begin(lambda: build(folder))
        time.sleep(chance.uniform(0, duration))
        os.kill(child, signal.SIGKILL)
        code, said = end(child, words)
        assert said == ""
        return code

    killed = round_ = 0
    while killed < KILLS:
        round_ += 1
        killed += _run_to_the_end(start, whole, tmp_path / f"round{round_}", attempt)


def test_killed_at_random_operations_on_files(work, start_in_child, die_at, tmp_path):
    """Most of the time goes into gradients; the dangerous moments lie between two renames."""
    build, start, whole = work
    begin, end = start_in_child
    chance = random.Random(1)

    def attempt(folder: Path) -> int:
        operation = chance.randrange(1, 60)
        code, said = end(*begin(lambda: die_at(operation, folder, lambda: build(folder))))
        assert said == ""
        return code

    killed = round_ = 0
    while killed < KILLS / 2:
        round_ += 1
        killed += _run_to_the_end(start, whole, tmp_path / f"round{round_}", attempt)


@pytest.mark.slow
def test_killed_at_every_operation_of_publishing(work, start_in_child, die_at, tmp_path):
    """From the last shard on: owners, manifest, the renames, CURRENT, and clearing up."""
    build, start, whole = work
    begin, end = start_in_child
    last = f"shards/{len(IndexReader.open(whole).manifest.shards) - 1:05d}.json"
    prepared = tmp_path / "prepared"
    shutil.copytree(start, prepared)

    def until_the_last_shard() -> None:
        def hook(event: str, arguments) -> None:
            if event == "os.remove" and (prepared / "building" / last).exists():
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        build(prepared)

    assert end(*begin(until_the_last_shard)) == (-signal.SIGKILL, "")
    killed = 0
    while True:
        operation = killed + 1
        attempts = iter([operation, 10**9])

        def attempt(folder: Path, attempts=attempts) -> int:
            at = next(attempts)
            code, said = end(*begin(lambda: die_at(at, folder, lambda: build(folder))))
            assert said == ""
            return code

        if not _run_to_the_end(prepared, whole, tmp_path / "round", attempt):
            break
        killed += 1
    assert killed > 8
