"""A build meets a full disk, a folder it may not write, a file in its way."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.progress import Silence
from influence.errors import (
    StorageFull,
)
from influence.store import IndexReader

KINDS = ["king", "queen", "river", "mountain", "city", "ship", "gold", "silver", "bread", "wine"]
PLACES = ["north", "south", "east", "west", "war", "peace", "treaty", "people", "miles", "area"]
WORDS = [*KINDS, *PLACES]


def _records(n: int = 24) -> list[dict]:
    """Plain texts of several lengths, owners and sources; some span several passages."""
    generator = np.random.default_rng(7)
    return [
        {
            "id": f"d{i}",
            "text": " ".join(generator.choice(WORDS, size=(6, 6, 45)[i % 3])),
            "owner": ("Lincoln", "Grant", None)[i % 3],
            "source": ("sotu", "factbook")[i % 2],
            "title": f"Title {i}",
        }
        for i in range(n)
    ]


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file but the locks, which say who held them and when."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def llama(new_llama, tokenizer, as_loaded):
    return as_loaded(new_llama(num_hidden_layers=1), tokenizer)


@pytest.fixture
def published(llama, build, small_settings, tmp_path):
    """An index that is there already, and the arguments of another build into the same folder."""
    build(_records(), llama)
    settings = small_settings(dims=512, damping=0.2)
    corpus, index_dir = str(tmp_path / "index.jsonl"), tmp_path / "index"

    def run():
        return build_index(corpus, llama, index_dir, settings, reporter=Silence())

    return index_dir, run


@pytest.mark.parametrize("limit", [600, 3_000, 20_000])
def test_a_full_disk_is_one_sentence_and_nothing_half_written(published, in_child, limit):
    """A limit on the size of files stands for the disk: plan, shard, basis, spool."""
    index_dir, run = published
    before = _tree(index_dir)

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        run()

    code, said = in_child(limited)
    assert code == 3, said
    assert said.startswith("StorageFull: Writing ")
    assert "larger than is allowed" in said
    after = _tree(index_dir)
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if name.endswith((".tmp", "spool"))]
    assert IndexReader.open(index_dir).version.startswith("000001")
    run()  # with room again, it is continued
    assert IndexReader.open(index_dir).version.startswith("000002")


def _small_disk(folder: Path, kilobytes: int) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs to mount a tmpfs")
def test_a_disk_that_is_really_full(llama, small_settings, in_child, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(record) + "\n" for record in _records()))
    settings = small_settings(dims=512)

    for kilobytes in (8, 100, 220):

        def run(kilobytes=kilobytes):
            build_index(
                str(corpus), llama, tmp_path / f"disk{kilobytes}", settings, reporter=Silence()
            )

        disk = tmp_path / f"disk{kilobytes}"
        if not _small_disk(disk, kilobytes):
            pytest.skip("mounting is not allowed here")
        try:
            code, said = in_child(run)
            left = [p for p in disk.rglob("*") if p.name.endswith((".tmp", "spool"))]
            current = (disk / "CURRENT").exists()
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        assert code == 3, said
        assert "the disk is full. Free some space" in said
        assert left == []
        assert not current


def _as_nobody(work):
    def run():
        if os.geteuid() == 0:  # root may write anywhere
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        work()

    return run


def test_no_permission_is_one_sentence_and_changes_nothing(published, in_child, tmp_path):
    index_dir, run = published
    before = _tree(index_dir)
    for folder in [tmp_path, *tmp_path.parents]:  # the child must get there to be refused there
        if folder.owner() == os.environ.get("USER", "root") and not folder.stat().st_mode & 0o5:
            folder.chmod(folder.stat().st_mode | 0o55)
    index_dir.chmod(0o555)
    try:
        code, said = in_child(_as_nobody(run))
    finally:
        index_dir.chmod(0o755)
    assert code == 3, said
    assert said.startswith("StorageFull: Writing ")
    assert "no permission to write there. Choose another folder" in said
    assert _tree(index_dir) == before


def test_a_file_in_the_way_of_the_folder(llama, build, tmp_path):
    (tmp_path / "index").write_text("not a folder")
    with pytest.raises(StorageFull, match="a file is in the way of a folder"):
        build(_records(10), llama)
    assert (tmp_path / "index").read_text() == "not a folder"
