"""An index fitted anew is that of a corpus in which only its own documents are."""

import numpy as np
import pytest

from indexer.progress import Reporter, Silence
from indexer.refit import refit_index
from influence.errors import BuildConflict
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
