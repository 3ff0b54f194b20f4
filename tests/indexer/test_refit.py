"""An index fitted anew is that of a corpus in which only its own documents are."""

import os
import random
import shutil
import signal
import time

import numpy as np
import pytest

from indexer.add import add_corpus
from indexer.progress import Reporter, Silence
from indexer.refit import refit_index
from influence.errors import BuildConflict, IndexBusy
from influence.removal import Selection, remove_documents
from influence.store import IndexReader

WORDS = "king queen river ship gold war peace north silver bread wine treaty"


def _records() -> list[dict]:
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(WORDS.split(), size=10)) for _ in range(24)]
    records = [
        {"id": f"d{n}", "text": text, "owner": ("Anna", "Bela")[n % 2], "year": n}
        for n, text in enumerate(texts)
    ]
    chat = {"id": "chat", "prompt": "Who is the king?", "response": "The queen and the ship."}
    return [*records, chat]


@pytest.fixture
def base(build, new_llama, chat_tokenizer, as_loaded):
    loaded = as_loaded(new_llama(num_hidden_layers=1, hidden_size=16), chat_tokenizer)
    return build(_records(), loaded, fit_passages=16), loaded


def test_a_refit_is_a_build_from_the_documents_that_are_left(base, build):
    before, loaded = base
    remove_documents(before.index_dir, Selection({"d3", "d4"}))
    refit_index(before.index_dir, loaded, reporter=Silence())
    got = IndexReader.open(before.index_dir)
    records = [record for record in _records() if record["id"] not in ("d3", "d4")]
    want = build(records, loaded, "fresh", fit_passages=16)
    same = {name: entry.sha256 for name, entry in want.manifest.files.items()}
    assert {name: entry.sha256 for name, entry in got.manifest.files.items()} == same
    assert got.manifest.corpus.fingerprint == want.manifest.corpus.fingerprint
    assert [change.kind for change in got.manifest.history] == ["removed", "refitted"]


class _RemovingMeanwhile(Reporter):
    """Removes a document once the documents have been read."""

    def __init__(self, index_dir):
        super().__init__()
        self._index_dir = index_dir

    def note(self, message):
        if message.startswith("Corpus:"):
            remove_documents(self._index_dir, Selection({"d5"}))


def test_what_is_removed_during_a_refit_is_not_there_again(base):
    before, loaded = base
    remove_documents(before.index_dir, Selection({"d3"}))
    with pytest.raises(BuildConflict, match="was changed to version"):
        refit_index(before.index_dir, loaded, reporter=_RemovingMeanwhile(before.index_dir))
    assert "d5" not in IndexReader.open(before.index_dir).document_ids()
    refit_index(before.index_dir, loaded, reporter=Silence(), restart=True)
    assert {"d3", "d5"}.isdisjoint(IndexReader.open(before.index_dir).document_ids())


def _tree(index_dir) -> dict[str, bytes]:
    """All files but the locks, which say who held them last."""
    return {
        str(path.relative_to(index_dir)): path.read_bytes()
        for path in sorted(index_dir.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_killed_at_random_operations_and_run_again_a_refit_ends_like_one_left_in_peace(
    base, in_child, die_at, tmp_path
):
    before, loaded = base
    remove_documents(before.index_dir, Selection({"d3"}))
    start, peace = IndexReader.open(before.index_dir).version, tmp_path / "peace"
    shutil.copytree(before.index_dir, peace)
    refitted = refit_index(peace, loaded, reporter=Silence())
    chance, killed = random.Random(3), 0

    def refit() -> None:
        refit_index(before.index_dir, loaded, reporter=Silence())

    while IndexReader.open(before.index_dir).version == start:
        operation = chance.randrange(1, 60) if killed < 6 else 10**9
        code, said = in_child(lambda at=operation: die_at(at, before.index_dir, refit))
        assert said == ""
        killed += code == -signal.SIGKILL
        reader = IndexReader.open(before.index_dir)
        reader.verify()
        assert reader.version in (start, refitted)
        assert "d3" not in reader.document_ids()
    assert killed >= 3
    refit()  # whatever the last one left over
    assert _tree(before.index_dir) == _tree(peace)


class _Waiting(Silence):
    """Says that the fit begins, and goes on when it is told to."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def step(self, what, *, total, unit):
        if what.startswith("Fitting"):
            (self._folder / "fitting").touch()
            while not (self._folder / "go").exists():
                time.sleep(0.01)
        return super().step(what, total=total, unit=unit)


def test_a_reader_and_other_writers_while_a_refit_is_at_work(
    base, write_jsonl, start_in_child, tmp_path
):
    built, loaded = base
    index_dir = built.index_dir
    remove_documents(index_dir, Selection({"d3"}))
    before = IndexReader.open(index_dir)
    begin, end = start_in_child
    more = write_jsonl([{"id": "new", "text": "a ship of gold in the north"}], "more.jsonl")
    first = begin(lambda: refit_index(index_dir, loaded, reporter=_Waiting(tmp_path)))
    while not (tmp_path / "fitting").exists():
        assert os.waitid(os.P_PID, first[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        time.sleep(0.01)
    with pytest.raises(IndexBusy, match=f"process {first[0]} on"):
        add_corpus(str(more), loaded, index_dir, reporter=Silence())
    second = begin(lambda: refit_index(index_dir, loaded, reporter=Silence()))  # shares the work
    vectors: dict[str, set[bytes]] = {}
    while any(os.waitid(os.P_PID, c, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
              for c in (first[0], second[0])):  # fmt: skip
        reader = IndexReader.open(index_dir)
        assert len(reader.document_ids()) == len(_records()) - 1
        read = np.concatenate(reader.vector_shards()).tobytes() + reader.norms.tobytes()
        vectors.setdefault(reader.version, set()).add(read)
        (tmp_path / "go").touch()
    assert end(*first) == (0, "")
    assert end(*second) == (0, "")
    after = IndexReader.open(index_dir)
    assert len(list((index_dir / "versions").iterdir())) == 3  # two refits at once are one
    assert before.version in vectors
    assert set(vectors) <= {before.version, after.version}
    assert all(len(read) == 1 for read in vectors.values())  # no version changed under a reader
    add_corpus(str(more), loaded, index_dir, reporter=Silence())
    assert "new" in IndexReader.open(index_dir).document_ids()
