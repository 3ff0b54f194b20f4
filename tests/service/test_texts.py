import pytest

from influence.errors import NotFound
from influence.store import IndexReader
from service import texts
from service.texts import Texts


@pytest.fixture
def reader(tiny):
    reader = IndexReader.open(tiny.index_dir)
    yield reader
    reader.close()


@pytest.mark.parametrize("room", [0, 300, 2**24])  # characters: for none, for some, for all
def test_every_document_is_as_the_store_has_it_whatever_is_kept(reader, monkeypatch, room):
    monkeypatch.setattr(texts, "_KEPT_CHARACTERS", room)
    kept, ids = Texts(reader), reader.document_ids()
    for document_id in [*ids, *reversed(ids), *ids[::3], *ids[::3]]:
        assert kept.stored(document_id) == reader.document(document_id)


def test_a_document_is_read_once_while_it_is_kept_and_the_one_used_longest_ago_goes_first(
    reader, monkeypatch
):
    read = []
    from_disk = reader.document
    monkeypatch.setattr(reader, "document", lambda name: read.append(name) or from_disk(name))
    first, second, third = reader.document_ids()[:3]
    room = len(from_disk(first).text) + max(len(from_disk(n).text) for n in (second, third))
    monkeypatch.setattr(texts, "_KEPT_CHARACTERS", room)
    kept = Texts(reader)
    for name in (first, second, first, third, first, second):
        kept.stored(name)
    assert read == [first, second, third, second]


def test_what_is_not_there_is_not_kept_either(reader):
    kept = Texts(reader)
    for _ in range(2):
        with pytest.raises(NotFound, match="'nobody'"):
            kept.stored("nobody")
