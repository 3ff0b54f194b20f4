"""Any number of processes, killed or not, build the index that one builds alone, to the byte."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from indexer.__main__ import main
from indexer.build import build_index
from indexer.crew import Claims, Crew
from indexer.progress import Silence
from influence.errors import InvalidInput
from influence.manifest import IndexSettings
from influence.staging import BUILDING
from influence.store import IndexReader
from influence.versions import SHARD_RECORDS

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {"rank": 4, "dims": 64, "max_length": 32, "batch_tokens": 256, "shard_passages": 8}
FIT = {"fit_passages": 24}
pytestmark = pytest.mark.timeout(300)


def _tree(folder: Path) -> dict[str, bytes]:
    """All files but the locks, which say who held them last."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory, new_llama, tokenizer, as_loaded):
    """A function that builds into a folder as one of a crew; the folder of a build left alone."""
    folder = tmp_path_factory.mktemp("crew")
    corpus = folder / "corpus.jsonl"
    words = ["king", "queen", "river", "ship", "gold", "war", "peace", "north"]
    records = [
        {
            "id": f"d{i}",
            "text": " ".join(words[(i * 7 + j * (i % 3 + 1)) % 8] for j in range(4 + i % 40)),
            "owner": f"owner {i % 3}",
        }
        for i in range(96)
    ]
    corpus.write_text("".join(json.dumps(record) + "\n" for record in records))
    model = folder / "model"
    new_llama(num_hidden_layers=1, hidden_size=16).save_pretrained(model)
    tokenizer.save_pretrained(model)

    def build(index_dir: Path, crew: Crew = Crew(), **changes) -> str:  # noqa: B008
        from influence.model import load_model

        return build_index(
            str(corpus),
            load_model(model),
            index_dir,
            IndexSettings(**SETTINGS, **FIT, **changes),
            reporter=Silence(),
            crew=crew,
        )

    build(folder / "alone")
    assert len(IndexReader.open(folder / "alone").manifest.shards) >= 16
    return build, corpus, model, folder / "alone"


@pytest.mark.parametrize("size", [2, 4])
def test_so_many_processes_build_the_same_bytes_as_one(work, start_in_child, tmp_path, size):
    build, *_, alone = work
    begin, end = start_in_child
    crew = [begin(lambda r=r: build(tmp_path / "index", Crew(r, size))) for r in range(size)]
    assert [end(*child) for child in crew] == [(0, "")] * size
    assert _tree(tmp_path / "index") == _tree(alone)


def _when(seen, child: int) -> None:
    """Wait until something is to be seen; fail if it never is."""
    for _ in range(3000):
        if seen():
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the build makes no progress")


def test_the_others_do_what_a_killed_process_has_left(work, start_in_child, tmp_path):
    build, *_, alone = work
    begin, end = start_in_child
    index_dir = tmp_path / "index"
    shards = index_dir / BUILDING / SHARD_RECORDS
    killed = begin(lambda: build(index_dir, Crew(1, 2)))
    _when((shards / "00001.json").exists, killed[0])
    os.kill(killed[0], signal.SIGKILL)
    assert end(*killed)[0] == -signal.SIGKILL
    left = {int(path.stem) for path in shards.glob("*.json") if path.stem.isdecimal()}
    assert left
    assert all(number % 2 for number in left)  # by stride
    assert build(index_dir, Crew(0, 2)) == IndexReader.open(alone).version
    assert _tree(index_dir) == _tree(alone)


def test_killed_all_together_a_crew_of_another_size_ends_the_build(work, start_in_child, tmp_path):
    build, *_, alone = work
    begin, end = start_in_child
    index_dir = tmp_path / "index"
    shards = index_dir / BUILDING / SHARD_RECORDS
    crew = [begin(lambda r=r: build(index_dir, Crew(r, 3))) for r in range(3)]
    _when(lambda: len(list(shards.glob("0*.json"))) >= 4, crew[0][0])
    for child, _ in crew:
        os.kill(child, signal.SIGKILL)
    assert {end(*child)[0] for child in crew} == {-signal.SIGKILL}
    crew = [begin(lambda r=r: build(index_dir, Crew(r, 2))) for r in range(2)]
    assert [end(*child) for child in crew] == [(0, "")] * 2
    assert _tree(index_dir) == _tree(alone)


def test_a_shard_that_was_damaged_meanwhile_is_written_again(work, start_in_child, tmp_path):
    build, *_, alone = work
    begin, end = start_in_child
    index_dir = tmp_path / "index"
    building = index_dir / BUILDING
    child = begin(lambda: build(index_dir))
    _when((building / SHARD_RECORDS / "00002.json").exists, child[0])
    os.kill(child[0], signal.SIGKILL)
    end(*child)
    with (building / "vectors/00001.npy").open("r+b") as stream:
        stream.truncate(100)
    build(index_dir, Crew(1, 2))
    assert _tree(index_dir) == _tree(alone)


@pytest.mark.slow
def test_torchrun_builds_the_same_bytes(work, tmp_path):
    _, corpus, model, alone = work
    options = [f"--{k.replace('_', '-')}={v}" for k, v in {**SETTINGS, **FIT}.items()]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(corpus), f"--model={model}", f"--out={tmp_path / 'index'}", *options]
    done = subprocess.run(
        [*launcher, "-m", "indexer", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    version = IndexReader.open(alone).version
    assert done.stdout.split() == [version]  # one process says it
    assert "rank 1 of 2: Logging gradients" in done.stderr
    assert _tree(tmp_path / "index") == _tree(alone)


def test_started_wrongly_it_says_so_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["indexer", "corpus.jsonl", "--model=m", f"--out={tmp_path}"])
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert str(stopped.value.code).startswith("error: The variable WORLD_SIZE is missing")
    assert len(str(stopped.value.code).splitlines()) == 1


def test_a_unit_is_free_in_the_moment_in_which_its_holder_is_killed(start_in_child, tmp_path):
    begin, end = start_in_child

    def hold() -> None:
        with Claims(tmp_path) as claims:
            assert claims.take("00007")
            (tmp_path / "held").touch()
            time.sleep(60)

    child = begin(hold)
    _when((tmp_path / "held").exists, child[0])
    with Claims(tmp_path) as claims:
        assert not claims.is_free("00007")
        assert not claims.take("00007")
        assert claims.take("00008")
        os.kill(child[0], signal.SIGKILL)
        end(*child)
        assert claims.take("00007")


@pytest.mark.parametrize(
    ("environment", "crew"),
    [
        ({}, Crew()),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, Crew(3, 8, 1)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, Crew(1, 2)),
        (
            # An array is told apart from the one task that each of its jobs has.
            {
                "SLURM_ARRAY_TASK_ID": "12",
                "SLURM_ARRAY_TASK_COUNT": "4",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_PROCID": "0",
                "SLURM_NTASKS": "1",
            },
            Crew(2, 4),
        ),
    ],
)
def test_a_launcher_says_which_process_this_is(environment, crew):
    assert Crew.from_environment(environment) == crew


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "one", "WORLD_SIZE": "2"},
        {"RANK": "1"},
        {"WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "0"},
        {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"},
    ],
)
def test_a_launcher_that_makes_no_sense_is_refused(environment):
    with pytest.raises(InvalidInput, match="torchrun or SLURM"):
        Crew.from_environment(environment)
