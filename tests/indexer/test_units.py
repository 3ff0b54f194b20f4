"""Chosen shards hold what cutting the whole corpus into runs would give them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.corpus import Located
from indexer.units import Units
from influence.documents import Document
from influence.errors import CorpusError
from influence.tokens import Passage, TokenSequence

TOKENS = TokenSequence([1, 2], [False, True], [(0, 1), (1, 2)])


def _corpus(counts):
    documents = [Located(Document(f"d{i}", plain="x"), f"line {i}") for i in range(len(counts))]
    cuts = {
        f"d{i}": [Passage(f"d{i}#{n}", f"d{i}", n, n, n + 1, TOKENS) for n in range(count)]
        for i, count in enumerate(counts)
    }
    return documents, cuts


def _units(counts, size, read=None):
    documents, cuts = _corpus(counts)
    places = [(i, n) for i, count in enumerate(counts) for n in range(count)]
    was_cut = []

    def cut(located):
        was_cut.append(located.document.id)
        return cuts[located.document.id]

    units = Units(read or (lambda: documents), cut, places[::size], size=size, passages=len(places))
    return units, was_cut


@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any),
    size=st.integers(1, 5),
    chosen=st.sets(st.integers(0, 20)),
)
def test_the_passages_of_a_shard_are_a_run_of_the_corpus(counts, size, chosen):
    units, was_cut = _units(counts, size)
    _, cuts = _corpus(counts)
    everything = [passage for passages in cuts.values() for passage in passages]
    runs = [everything[i : i + size] for i in range(0, len(everything), size)]
    assert len(units) == len(runs)
    asked = []

    def wanted(number):
        asked.append(number)
        return number in chosen

    found = {number: [item.passage for item in items] for number, items in units.chosen(wanted)}
    assert found == {n: run for n, run in enumerate(runs) if n in chosen}
    assert asked == list(range(len(runs)))
    needed = {p.document_id for run in found.values() for p in run}
    begun = {run[0].document_id for run in runs}
    # And no other document is cut into tokens, unless it turns out to be empty.
    assert {d for d in was_cut if cuts[d]} <= needed | begun


def test_the_document_comes_with_its_first_passage_alone():
    units, _ = _units([3, 2], 2)
    items = [item for _, shard in units.chosen(lambda _: True) for item in shard]
    assert [item.document and item.document.id for item in items] == ["d0", None, None, "d1", None]


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_corpus_that_shrank_meanwhile_is_noticed(left):
    documents, _ = _corpus([2, 2, 2])
    units, _ = _units([2, 2, 2], 4, read=lambda: documents[:left])
    with pytest.raises(CorpusError, match="was changed while it was being indexed"):
        list(units.chosen(lambda _: True))
