"""The life of an index on the command line: each command really run, and what it refuses."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.main import main
from influence.lock import WRITERS, sole_writer
from influence.store import IndexReader

WORDS = ("the", "a", "of", "king", "queen", "river", "city", "ship", "gold", "silver", "north")


def _corpus(path: Path, ids: list[str], *, seed: int) -> Path:
    draw = random.Random(seed)
    records = [
        {
            "id": i,
            "text": " ".join(draw.choices(WORDS, k=12)),
            "owner": ("Ann", "Ben")[number % 2],
            "year": 1860 + number,
        }
        for number, i in enumerate(ids)
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory, new_llama, chat_tokenizer, tokenizer) -> Path:
    """Two tiny models with tokenizers of their own, corpora, and an index of the first ones."""
    folder = tmp_path_factory.mktemp("life")
    small = {"num_hidden_layers": 1, "hidden_size": 16}
    for name, seed, words in (("model", 0, chat_tokenizer), ("other", 1, tokenizer)):
        new_llama(seed=seed, **small).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    _corpus(folder / "corpus.jsonl", [f"d{n}" for n in range(12)], seed=0)
    _corpus(folder / "more.jsonl", ["e0", "e1", "e2"], seed=1)
    _corpus(folder / "again.jsonl", ["d0", "e9"], seed=2)
    with pytest.MonkeyPatch.context() as patch:
        _run(patch, "index", folder / "corpus.jsonl", "--model", folder / "model", "--out",
             folder / "index", "--rank", "4", "--dims", "64", "--shard-passages", "4",
             "--fit-passages", "8")  # fmt: skip
    return folder


@pytest.fixture
def index(made, tmp_path) -> Path:
    """An index of its own for a test that changes it."""
    shutil.copytree(made / "index", tmp_path / "index")
    return tmp_path / "index"


def _run(monkeypatch, *arguments: str | Path) -> str | int | None:
    """0, the status of a usage error, or the sentence of a failure."""
    monkeypatch.setattr(sys, "argv", ["whence", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.fixture
def whence(monkeypatch, capsys):
    """Run a command that must do; what it printed."""

    def run(*arguments: str | Path) -> str:
        capsys.readouterr()
        assert _run(monkeypatch, *arguments) == 0
        return capsys.readouterr().out.strip()

    return run


@pytest.fixture
def refused(monkeypatch):
    """Run a command that must fail: its sentence, or 2 for a usage error."""
    return lambda *arguments: _run(monkeypatch, *arguments)


def _documents(index: Path) -> set[str]:
    return set(IndexReader.open(index).document_ids())


def test_a_life(whence, made, index, tmp_path):
    first = {f"d{n}" for n in range(12)}
    added = whence("add", index, made / "more.jsonl")
    assert added == IndexReader.open(index).version
    assert _documents(index) == first | {"e0", "e1", "e2"}
    whence("add", index, made / "again.jsonl", "--replace")
    assert _documents(index) == first | {"e0", "e1", "e2", "e9"}
    whence("remove", index, "--document", "e9", "--document", "e2")
    whence("remove", index, "--owner", "Ann", "--where", "year=1864")
    removed = IndexReader.open(index).version
    assert _documents(index) == (first | {"e0", "e1"}) - {"d4"}
    told = whence("versions", index).splitlines()
    assert [line[0] for line in told].count("*") == 1
    assert [line.lstrip("* ").split()[1] for line in told] == [
        "indexed", "added", "added", "removed", "removed"
    ]  # fmt: skip
    assert whence("rollback", index, "--to", added) == added
    assert _documents(index) == first | {"e0", "e1", "e2"}
    whence("rollback", index, "--to", removed)
    compacted = whence("compact", index).splitlines()
    assert len(compacted) == 1 + 5  # the version, and every earlier one cleared away
    whence("search-index", index, "--search", "sq8")
    whence("verify", index)
    (IndexReader.open(index).directory / "owners.npz").write_bytes(b"")
    assert "owners.npz had to be made again" in whence("verify", index, "--repair")
    refitted = whence("refit", index)
    assert _documents(index) == (first | {"e0", "e1"}) - {"d4"}
    assert len(whence("gc", index, "--keep", "0").splitlines()) >= 1
    url = f"file://{tmp_path}/store/index"
    assert whence("push", index, url) == refitted
    assert refitted in whence("verify", url)
    assert whence("pull", url, tmp_path / "pulled") == refitted
    assert refitted in whence("verify", tmp_path / "pulled")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "{index}", "{more}", "--model", "{other}"], "was built from model"),
        (["add", "{index}", "{again}"], "d0"),
        (["add", "{index}", "{index}/nowhere.jsonl"], "nowhere.jsonl"),
        (["remove", "{index}", "--document", "nobody"], "nobody"),
        (["remove", "{index}", "--owner", "Zoe"], "Zoe"),
        (["remove", "{index}", "--where", "year=2000"], "year"),
        (["remove", "{index}"], 2),
        (["remove", "{index}", "--where", "year"], 2),
        (["rollback", "{index}"], "oldest version"),
        (["rollback", "{index}", "--to", "000009-0123456789ab"], "000009-0123456789ab"),
        (["gc", "{index}", "--keep", "-1"], 2),
        (["refit", "{index}", "--model", "{index}/nowhere"], "nowhere"),
        (["push", "{index}", "no-url"], 2),
        (["pull", "file://{index}/nothing", "{index}2"], "nothing"),
        (["verify", "s3://bucket/index", "--repair"], 2),
        (["index", "{more}", "--model", "{other}", "--out", "s3://b/i"], "whence push FOLDER s3://b/i"),
        (["add", "s3://b/i", "{more}"], "whence pull s3://b/i"),
        (["remove", "s3://b/i", "--document", "d0"], "whence pull s3://b/i"),
        (["compact", "s3://b/i"], "whence pull s3://b/i"),
        (["refit", "s3://b/i"], "whence pull s3://b/i"),
        (["gc", "s3://b/i"], "whence pull s3://b/i"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else str(value)[:20],
)  # fmt: skip
def test_a_wrong_change_is_refused_in_one_sentence(refused, made, arguments, told):
    names = {n: str(made / n) for n in ("index", "other")}
    names |= {n: str(made / f"{n}.jsonl") for n in ("more", "again")}
    before = IndexReader.open(made / "index").version
    said = refused(*(argument.format(**names) for argument in arguments))
    if told == 2:
        assert said == 2
    else:
        assert isinstance(said, str)
        assert said.startswith("error: ")
        assert told in said
    assert IndexReader.open(made / "index").version == before
    assert len(list((made / "index" / "versions").iterdir())) == 1


def test_a_second_writer_is_told_who_writes_and_a_stale_lock_is_none(whence, refused, made, index):
    with sole_writer(index):
        assert "is being written to by process" in str(refused("add", index, made / "more.jsonl"))
    (index / WRITERS).write_text(json.dumps({"process": 2**22, "host": "gone", "since": "once"}))
    whence("add", index, made / "more.jsonl")


@pytest.fixture
def read_only(index):
    """The index on a disk that nobody can write to."""
    bound = subprocess.run(
        ["mount", "--bind", index, index], check=False, capture_output=True
    ).returncode
    if (
        bound
        or subprocess.run(
            ["mount", "-o", "remount,ro,bind", index], check=False, capture_output=True
        ).returncode
    ):
        if not bound:
            subprocess.run(["umount", index], check=True)
        pytest.skip("mounting a folder read-only is not allowed here")
    yield index
    subprocess.run(["umount", "--lazy", index], check=True)


def test_on_a_read_only_disk_reading_works_and_every_change_is_refused(
    whence, refused, made, read_only
):
    index = read_only
    whence("info", index)
    whence("verify", index)
    whence("versions", index)
    whence("attribute", index, "--prompt", "who", "--response", "the queen", "--json")
    for arguments in (
        ["index", made / "corpus.jsonl", "--model", made / "model", "--out", index],
        ["add", index, made / "more.jsonl"],
        ["remove", index, "--document", "d0"],
        ["compact", index],
        ["rollback", index],
        ["refit", index],
        ["gc", index],
        ["redamp", index, "--damping", "0.5"],
        ["verify", index, "--repair"],
        ["pull", f"file://{made}/index", index],
    ):
        said = refused(*arguments)
        assert "read-only" in str(said), (arguments[0], said)
