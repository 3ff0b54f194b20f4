"""`whence quality` on a corpus with copies in it, and the corpus that it leaves."""

import json
import random
import sys

import pytest
from typer.testing import CliRunner

from cli.main import app
from indexer.corpus import read_corpus
from influence.errors import InvalidInput
from service.valuation.agreement import by_agreement

WORDS = ["king", "queen", "river", "mountain", "city", "gold", "silver", "war", "peace"]


@pytest.fixture
def small(build, new_llama, tokenizer, as_loaded):
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=12)) for _ in range(12)]
    records = [{"id": f"d{i}", "text": text, "owner": "Anna"} for i, text in enumerate(texts)]
    chat = {"id": "chat", "prompt": "who is king?", "response": "nobody", "colour": "red"}
    copies = [{"id": f"copy of {i}", "text": texts[i].title()} for i in (3, 5)]
    return build([*records, chat, *copies], as_loaded(new_llama(num_hidden_layers=1), tokenizer))


def _run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_copies_are_told_and_left_out_of_the_lists_and_of_the_data_set(small, tmp_path):
    keep, drop, folder = tmp_path / "keep.txt", tmp_path / "drop.txt", tmp_path / "kept"
    result = _run("quality", small.index_dir, "--json", "--cosine", 1, "--max-z", 1000,
                  "--keep", keep, "--drop", drop, "--dataset", folder)  # fmt: skip
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert {d["document_id"]: d["duplicate_of"] for d in told["duplicates"]} == {
        "copy of 3": "d3",
        "copy of 5": "d5",
    }
    assert drop.read_text() == "copy of 3\ncopy of 5\n"
    assert keep.read_text().split("\n") == [*(f"d{i}" for i in range(12)), "chat", ""]
    assert list(tmp_path.glob(".kept*")) == []
    again = list(read_corpus(str(folder)))
    originals = [small.document(d.id) for d in again]
    assert [d.id for d in again] == keep.read_text().splitlines()
    assert [(d.text, d.turns, d.owner) for d in again] == [
        (d.text, d.turns, d.owner) for d in originals
    ]
    assert json.loads(again[-1].metadata["metadata_json"]) == {"colour": "red"}


def test_the_table_names_copies_and_odd_documents(small):
    result = _run("quality", small.index_dir, "--max-z", 0)
    assert result.exit_code == 0, result.output
    assert "1.000  text    copy of 3 of d3" in result.stdout
    assert "beyond 0 robust standard deviations" in result.stdout
    told = json.loads(_run("quality", small.index_dir, "--json").stdout)["contradicted"]
    assert told == [vars(one) for one in by_agreement(small) if one.agreement < 0]
    assert f"{len(told)} are contradicted" in result.stdout


def test_nothing_is_written_where_nothing_is_kept_or_a_folder_is_in_the_way(small, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    result = _run("quality", small.index_dir, "--dataset", there)
    assert isinstance(result.exception, InvalidInput)
    assert "is there already" in str(result.exception)
    result = _run("quality", small.index_dir, "--jaccard", 0)
    assert "above 0" in str(result.exception)
    result = _run("quality", tmp_path / "nowhere")
    assert result.exit_code == 1


def test_without_datasets_the_sentence_says_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    result = _run("quality", small.index_dir, "--dataset", tmp_path / "d")
    assert "whence[curation]" in str(result.exception)
