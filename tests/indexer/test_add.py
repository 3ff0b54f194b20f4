"""Documents added later have the rows they would have had at once, under the basis there is."""

import json
import os
import signal
import sys

import numpy as np
import pytest

from indexer.add import add_corpus
from indexer.drift import has_drifted
from indexer.progress import Silence
from influence.basis import basis_of
from influence.encoder import GradientEncoder
from influence.errors import BuildConflict, CorpusError, IndexBusy, IndexMismatch, InvalidInput
from influence.lock import sole_writer
from influence.removal import Selection, remove_documents
from influence.retention import list_versions, roll_back
from influence.store import IndexReader
from influence.tokens import document_passages

WORDS = "king queen river ship gold war peace north silver bread wine treaty"


def _records(first: int, count: int) -> list[dict]:
    generator = np.random.default_rng(first)
    return [
        {
            "id": f"d{number}",
            "text": " ".join(generator.choice(WORDS.split(), size=10)),
            "owner": ("Anna", "Bela")[number % 2],
        }
        for number in range(first, first + count)
    ]


@pytest.fixture
def loaded(new_llama, tokenizer, as_loaded):
    return as_loaded(new_llama(num_hidden_layers=1, hidden_size=16), tokenizer)


@pytest.fixture
def base(build, loaded) -> IndexReader:
    return build(_records(0, 30), loaded, fit_passages=20)


@pytest.fixture
def corpus(tmp_path):
    def write(records, name="more.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(path)

    return write


def _add(base, corpus, loaded, **options) -> IndexReader:
    add_corpus(corpus, loaded, base.index_dir, reporter=Silence(), **options)
    return IndexReader.open(base.index_dir)


def _tree(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def test_added_rows_are_those_of_the_basis_and_the_old_ones_stay(base, corpus, loaded):
    grown = _add(base, corpus(_records(30, 25)), loaded)
    grown.verify()
    assert grown.document_ids() == [f"d{number}" for number in range(55)]
    encoder = GradientEncoder(loaded, basis_of(base))
    passages = [
        passage
        for document in grown.documents()
        for passage in document_passages(document, loaded.tokenizer, max_length=32)
    ]
    assert [grown.passage(row).id for row in range(len(grown))] == [p.id for p in passages]
    want = encoder.vectors([p.tokens for p in passages]).numpy().astype(np.float64)
    got = np.concatenate(grown.vector_shards()).astype(np.float64) * grown.norms[:, None]
    # float16 keeps 11 bits of each number; the batches are others, in float32.
    assert (np.abs(got - want).max(axis=1) <= 2**-10 * np.linalg.norm(want, axis=1)).all()
    old = len(base)
    np.testing.assert_array_equal(
        np.concatenate(grown.vector_shards())[:old], np.concatenate(base.vector_shards())
    )
    for name, total in zip(grown.owners.names, grown.owners.sums, strict=True):
        mine = grown.row_owners == name
        np.testing.assert_allclose(
            total, got[mine].sum(axis=0), atol=1e-5 * grown.norms[mine].sum()
        )
    manifest = grown.manifest
    assert manifest.corpus.documents == 55
    assert manifest.corpus.passages == manifest.rows == len(grown)
    assert manifest.settings == base.manifest.settings
    assert manifest.files["basis.safetensors"] == base.manifest.files["basis.safetensors"]
    assert 0 < manifest.history[-1].outside_share < 1
    assert 0 < manifest.fit.outside_share < 1


def test_adding_the_same_again_changes_nothing(base, corpus, loaded):
    path = corpus(_records(30, 5))
    assert _add(base, path, loaded).version == _add(base, path, loaded).version
    assert len(list_versions(base.index_dir)) == 2


def test_an_id_that_is_there_is_refused_or_replaced(base, corpus, loaded):
    text = {"id": "d3", "text": "a quite different text of wine and bread", "owner": "Carl"}
    path = corpus([text, *_records(40, 2)])
    with pytest.raises(CorpusError, match=r"1 documents of .*'d3' \(more.jsonl, line 1\)"):
        _add(base, path, loaded)
    assert IndexReader.open(base.index_dir).version == base.version
    grown = _add(base, path, loaded, replace=True)
    assert grown.document("d3").text == text["text"]
    assert sorted(grown.document_ids()) == sorted([*base.document_ids(), "d40", "d41"])
    assert grown.owners.names == ("Anna", "Bela", "Carl")
    assert grown.owners.counts.sum() == len(grown) == grown.manifest.corpus.passages
    assert grown.manifest.corpus.documents == 32


def test_another_model_tokenizer_or_precision_is_refused(
    base, corpus, loaded, new_llama, new_tokenizer, as_loaded
):
    path = corpus(_records(30, 2))
    other = as_loaded(new_llama(num_hidden_layers=1, hidden_size=16, seed=1), loaded.tokenizer)
    with pytest.raises(IndexMismatch, match="weights"):
        _add(base, path, other)
    other = as_loaded(loaded.model, new_tokenizer(["other words altogether"]))
    with pytest.raises(IndexMismatch, match="tokenizer"):
        _add(base, path, other)
    other = as_loaded(loaded.model, loaded.tokenizer, dtype="bfloat16")
    with pytest.raises(InvalidInput, match="--dtype float32"):
        _add(base, path, other)
    assert _tree(base.index_dir).keys() == {
        "CURRENT",
        *(f"versions/{base.version}/{name}" for name in (*base.manifest.files, "manifest.json")),
    }


def test_two_writers(base, corpus, loaded):
    path = corpus(_records(30, 2))
    with sole_writer(base.index_dir), pytest.raises(IndexBusy, match=f"process {os.getpid()} on"):
        _add(base, path, loaded)


def test_killed_it_goes_on_and_what_was_removed_meanwhile_stays_away(
    base, corpus, loaded, start_in_child
):
    begin, end = start_in_child
    path = corpus(_records(30, 40))

    def die_after_two_shards():
        def hook(event, arguments):
            if event == "os.rename" and str(arguments[1]).endswith("shards/00001.json"):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        _add(base, path, loaded)

    assert end(*begin(die_after_two_shards)) == (-signal.SIGKILL, "")
    assert IndexReader.open(base.index_dir).version == base.version
    finished = base.index_dir / "building/shards/00000.json"
    written = finished.stat().st_mtime_ns
    with pytest.raises(BuildConflict, match=r"in corpus\."):
        _add(base, corpus(_records(90, 2), "other.jsonl"), loaded)
    remove_documents(base.index_dir, Selection({"d7"}))
    assert finished.stat().st_mtime_ns == written
    grown = _add(base, path, loaded)
    assert grown.document_ids() == [f"d{number}" for number in range(70) if number != 7]
    assert not (base.index_dir / "building").exists()
    roll_back(base.index_dir, base.version)
    whole = _add(base, path, loaded)
    got, want = (
        {reader.passage(row).id: reader.norms[row] for row in range(len(reader))}
        for reader in (grown, whole)
    )
    assert got == {name: norm for name, norm in want.items() if not name.startswith("d7#")}


def test_drift_is_told_by_what_the_basis_keeps():
    assert not has_drifted(0.30, 0.25)  # .70 of .75 kept: 7 % less
    assert has_drifted(0.40, 0.25)  # .60 of .75: a fifth less
    assert not has_drifted(None, 0.25)


def test_texts_of_another_kind_drift(build, corpus, loaded, caplog):
    """A basis of two repeated words keeps less of passages about everything else."""
    narrow = [{"id": f"n{i}", "text": "gold ship " * (4 + i % 3)} for i in range(40)]
    base = build(narrow, loaded, "narrow", rank=4, fit_passages=40)
    generator = np.random.default_rng(0)
    wide = [
        {"id": f"w{i}", "text": "".join(chr(c) for c in generator.integers(0x21, 0x17F, size=24))}
        for i in range(20)
    ]
    grown = _add(base, corpus(wide), loaded)
    assert grown.manifest.history[-1].outside_share > base.manifest.fit.outside_share
    assert "Run whence refit" in caplog.text


def test_indexing_the_same_corpus_again_brings_nothing_back(build, loaded):
    base = build(_records(0, 12), loaded)
    remove_documents(base.index_dir, Selection(documents=["d3"]))
    with pytest.raises(BuildConflict, match="1 documents have been removed since"):
        build(_records(0, 12), loaded)
    assert "d3" not in IndexReader.open(base.index_dir).document_ids()
    roll_back(base.index_dir, base.version)
    assert "d3" in build(_records(0, 12), loaded).document_ids()
