"""The `whence` command as people run it: a process of its own, its output, its exit status."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from cli.main import main
from influence.store import IndexReader

WORDS = ("the", "a", "of", "king", "queen", "river", "city", "ship", "gold", "silver", "north")
SETTINGS = (
    *("--rank", "8", "--dims", "256", "--shard-passages", "16"),
    *("--null-queries", "20"),
)


def whence(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, new_llama, chat_tokenizer) -> Path:
    """A tiny model, a corpus of 40 documents and its index."""
    folder = tmp_path_factory.mktemp("cli")
    new_llama().save_pretrained(folder / "model")
    chat_tokenizer.save_pretrained(folder / "model")
    draw = random.Random(0)
    with (folder / "corpus.jsonl").open("w") as stream:
        for number in range(40):
            text = " ".join(draw.choices(WORDS, k=draw.randint(5, 40)))
            record = {"id": f"d{number}", "text": text, "owner": draw.choice(["Ann", "Ben"])}
            stream.write(json.dumps(record) + "\n")
    built = whence(
        "index", folder / "corpus.jsonl", "--model", folder / "model", "--out", folder / "index",
        *SETTINGS,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert built.stdout.strip().startswith("000001-")
    return folder


def test_the_built_index_is_described_and_verified(folder):
    told = whence("info", folder / "index")
    assert told.returncode == 0
    assert "40 documents" in told.stdout
    assert IndexReader.open(folder / "index").manifest.settings.null_queries == 20
    assert "not measured" in told.stdout
    assert json.loads(whence("info", folder / "index", "--json").stdout)["rows"] == 40
    assert "all as the manifest says" in whence("verify", folder / "index").stdout


def test_building_again_says_that_it_is_built(folder):
    again = whence(
        "index", folder / "corpus.jsonl", "--model", folder / "model", "--out", folder / "index",
        *SETTINGS,
    )  # fmt: skip
    assert again.returncode == 0
    assert "already built" in again.stderr


def test_an_answer_for_people_and_for_programs(folder):
    question = ("--prompt", "who was king", "--response", "the queen of the mountain", "-k", "3")
    told = whence("attribute", folder / "index", *question)
    assert told.returncode == 0, told.stderr
    assert "Proponents" in told.stdout
    answer = json.loads(whence("attribute", folder / "index", *question, "--json").stdout)
    influences = [hit["influence"] for hit in answer["proponents"]]
    assert len(influences) == 3
    assert all(influence > 0 for influence in influences)
    only = whence("attribute", folder / "index", *question, "--owner", "Ann", "--json")
    assert {hit["owner"] for hit in json.loads(only.stdout)["proponents"]} == {"Ann"}


def test_a_contrast_explained_for_people(folder):
    told = whence(
        "attribute", folder / "index", "--prompt", "who was", "--response", "the queen of gold",
        "--measurement", "contrast", "--alternative", "the king of gold", "--span", "4:9",
        "--explain", "-k", "2",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "; contrast " in told.stdout.splitlines()[0]
    for beginning in ("     learnt at  ", "     bears on   ", "     through    attention "):
        assert sum(line.startswith(beginning) for line in told.stdout.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["attribute", "{index}", "--prompt", "", "--response", "x"], 1, "prompt is ''"),
        (["attribute", "{index}", "--prompt", "a", "--response", ""], 1, "response is ''"),
        (
            ["attribute", "{index}", "--prompt", "a", "--response", "b", "--ranking", "odd"],
            1,
            "odd",
        ),
        (["attribute", "{index}", "--prompt", "a"], 2, "--response"),
        (["attribute", "{index}", "--prompt", "a", "--response", "b", "--span", "3"], 1, "'3'"),
        (
            ["attribute", "{index}", "--prompt", "a", "--response", "b", "--span", "1:9"],
            1,
            "1 to 9",
        ),
        (
            [
                "attribute",
                "{index}",
                "--prompt",
                "a",
                "--response",
                "b",
                "--measurement",
                "contrast",
            ],
            1,
            "needs an alternative",
        ),
        (["attribute", "{index}", "--prompt", "a", "--response", "b " * 900], 1, "at most 256"),
        (["info", "nowhere"], 1, "no index in nowhere"),
        (["verify", "nowhere"], 1, "whence index"),
        (["index", "nowhere.jsonl", "--model", "{model}", "--out", "x"], 1, "nowhere.jsonl"),
        (["index", "{corpus}", "--model", "nowhere", "--out", "x"], 1, "nowhere"),
        (["index", "{corpus}", "--model", "{model}", "--out", "x", "--rank", "0"], 2, "above 0"),
        (["index", "{corpus}", "--model", "{model}", "--out", "x", "--dims", "few"], 2, "few"),
        (["index", "{corpus}", "--model", "{model}", "--out", "x", "--damping", "0"], 2, "above 0"),
        (["index", "{corpus}", "--model", "{model}", "--out", "x", "--layers", "zz"], 1, "q_proj"),
        (["index", "{corpus}", "--model", "{model}", "--out", "x", "--device", "tpu"], 1, "tpu"),
        (["serve", "nowhere", "--no-auth"], 1, "no index in nowhere"),
        (["serve", "nowhere"], 1, "whence keys create"),
        (["serve", "nowhere", "--no-auth", "--host", "0.0.0.0"], 1, "let everybody in"),
        (["demo", "--host", "0.0.0.0"], 1, "let everybody in"),
        (["rubbish"], 2, "rubbish"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_its_status(
    folder, tmp_path, monkeypatch, capsys, arguments, status, told
):
    names = {"index": "index", "model": "model", "corpus": "corpus.jsonl"}
    places = {name: str(folder / file) for name, file in names.items()}
    given = [a.format(**places) if a != "x" else str(tmp_path / "x") for a in arguments]
    monkeypatch.setattr(sys, "argv", ["whence", *given])
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert printed.out == ""
    if status == 1:  # `sys.exit` with a sentence prints it and exits with status 1
        assert isinstance(ended.value.code, str)
        assert ended.value.code.startswith("error: ")
        assert told in ended.value.code
    else:
        assert ended.value.code == status
        assert told in printed.err
    assert not (tmp_path / "x" / "CURRENT").exists()


def test_a_failure_exits_with_status_1_and_no_traceback():
    done = whence("info", "nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no index in nowhere")
    assert "Traceback" not in done.stderr


def test_serve_answers_and_ends_when_told_to(folder):
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cli.main",
            "serve",
            str(folder / "index"),
            "--no-auth",
            "--port",
            "0",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        url = line.split(" on ")[1].strip()
        body = json.dumps({"prompt": "who was king", "response": "the queen"}).encode()
        asked = urllib.request.Request(
            f"{url}/attribute", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["proponents"]
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
        assert server.returncode in (0, -signal.SIGTERM)
        assert time.monotonic() - begun < 15
    finally:
        server.kill()
        server.communicate()
