"""What was removed is in no answer of the store, and after a compaction nowhere on the disk."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from influence.compaction import compact_index
from influence.errors import IndexBusy, InvalidInput, NotFound, StorageFull
from influence.lock import CHANGES, FileLock, changing, sole_writer
from influence.removal import Selection, remove_documents
from influence.retention import clear_versions, list_versions, roll_back
from influence.store import IndexReader


def _removed(hand_made, **selection):
    return remove_documents(hand_made.index_dir, Selection(**selection))


def _assert_holds(reader: IndexReader, hand_made, kept):
    """The reader is that of an index in which the other documents never were."""
    names = [d.id for d in kept]
    rows = [i for i, row in enumerate(hand_made.rows) if row.document_id in set(names)]
    assert reader.document_ids() == names
    assert len(reader) == len(rows)
    owner = {d.id: d.owner or "" for d in kept}
    assert reader.row_owners.tolist() == [owner[hand_made.rows[i].document_id] for i in rows]
    units = np.concatenate(reader.vector_shards()).astype(np.float64)
    error = units * reader.norms[:, None] - hand_made.vectors[rows]
    # float16 keeps 11 bits
    assert (np.abs(error).max(axis=1) <= 2**-11 * reader.norms).all()
    np.testing.assert_array_equal(
        reader.vectors(np.arange(len(rows))), np.concatenate(reader.vector_shards())
    )
    for row, i in enumerate(rows):
        assert (
            reader.passage(row).id == f"{hand_made.rows[i].document_id}#{hand_made.rows[i].number}"
        )
    for document in kept:
        stored = reader.document(document.id)
        assert (stored.plain, stored.messages) == (document.plain, document.messages)
        assert {reader.passage(row).document_id for row in stored.rows} == {document.id}
    totals = reader.owners
    assert totals.names == tuple(sorted(set(owner.values())))
    for name, total, count in zip(totals.names, totals.sums, totals.counts, strict=True):
        mine = reader.row_owners == name
        assert count == mine.sum() == reader.rows_where(owners=[name]).sum()
        exact = hand_made.vectors[np.array(rows)[mine]].astype(np.float64).sum(axis=0)
        # Each of the summed vectors was rounded to float16.
        np.testing.assert_allclose(total, exact, atol=2**-11 * reader.norms[mine].sum())


def test_documents_of_an_id_an_owner_or_a_field_are_gone(hand_made):
    documents = hand_made.documents
    removed = _removed(hand_made, documents={"doc-7", "chat"})
    assert removed.documents == 2
    kept = [d for d in documents if d.id not in ("doc-7", "chat")]
    _assert_holds(IndexReader.open(hand_made.index_dir), hand_made, kept)
    removed = _removed(hand_made, owners={"Lincoln"})
    kept = [d for d in kept if d.owner != "Lincoln"]
    _assert_holds(IndexReader.open(hand_made.index_dir), hand_made, kept)
    _removed(hand_made, where={"year": "1861", "source": "factbook"})
    kept = [d for d in kept if d.metadata.get("year") != 1861]
    reader = IndexReader.open(hand_made.index_dir)
    _assert_holds(reader, hand_made, kept)
    reader.verify()
    assert reader.manifest.corpus.documents == len(kept)
    assert reader.manifest.corpus.passages == len(reader)
    assert removed.version != reader.version
    with pytest.raises(NotFound, match="'doc-7'"):
        reader.document("doc-7")
    with pytest.raises(NotFound, match="which has"):
        reader.passage(len(reader))


def test_all_conditions_must_hold(hand_made):
    with pytest.raises(NotFound, match=r"'doc-0': no such document .* meets the other conditions"):
        _removed(hand_made, documents={"doc-0", "doc-3"}, where={"title": "Title 3"})
    assert IndexReader.open(hand_made.index_dir).version == hand_made.version


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"documents": {"nobody"}}, "'nobody': no such document"),
        ({"documents": {"doc-1", "nobody"}}, "Nothing was removed"),
        ({"owners": {"nobody"}}, "has owner=nobody"),
        ({"where": {"shoe": "42"}}, "has shoe=42"),
    ],
)
def test_removing_what_is_not_there_is_refused_and_changes_nothing(hand_made, selection, words):
    with pytest.raises(NotFound, match=words):
        _removed(hand_made, **selection)
    assert [entry.name for entry in list_versions(hand_made.index_dir)] == [hand_made.version]


def test_nothing_to_remove_is_refused():
    with pytest.raises(InvalidInput, match="Nothing says which"):
        Selection()


def test_an_unchanged_file_is_shared_by_the_versions(hand_made):
    version = _removed(hand_made, documents={"doc-7"}).version
    for name in hand_made.manifest.files:
        same = (hand_made.index_dir / "versions" / version / name).samefile(
            hand_made.directory / name
        )
        assert same == (name != "owners.npz")


def test_a_reader_stays_with_its_version_and_keeps_it(hand_made):
    reader = IndexReader.open(hand_made.index_dir)
    _removed(hand_made, owners={"Lincoln"})
    compact_index(hand_made.index_dir)
    cleared = clear_versions(hand_made.index_dir, keep=0)
    assert cleared.still_read == (hand_made.version,)
    assert len(cleared.versions) == 1
    _assert_holds(reader, hand_made, hand_made.documents)
    reader.close()
    assert clear_versions(hand_made.index_dir, keep=0).versions == (hand_made.version,)


def test_a_reader_that_was_killed_keeps_nothing(hand_made, start_in_child):
    begin, end = start_in_child
    ready, say = os.pipe()

    def read():
        reader = IndexReader.open(hand_made.index_dir)
        os.write(say, b"r")
        signal.pause()
        reader.close()

    child, words = begin(read)
    assert os.read(ready, 1) == b"r"
    _removed(hand_made, documents={"doc-7"})
    assert clear_versions(hand_made.index_dir, keep=0).still_read == (hand_made.version,)
    os.kill(child, signal.SIGKILL)
    assert end(child, words) == (-signal.SIGKILL, "")
    assert clear_versions(hand_made.index_dir, keep=0).versions == (hand_made.version,)


def test_after_compaction_the_text_is_nowhere_in_the_folder(hand_made):
    def found(text: bytes) -> list[str]:
        return [
            str(path) for path in hand_made.index_dir.rglob("*")
            if path.is_file() and text in path.read_bytes()
        ]  # fmt: skip

    # Short texts of one row group are stored as they are, so that a search for bytes finds them.
    document = hand_made.documents[7]
    vector = np.load(hand_made.directory / "vectors/00000.npy", allow_pickle=False)
    row = next(i for i, r in enumerate(hand_made.rows) if r.document_id == "doc-7")
    vector_bytes = vector[row].tobytes()
    assert found(b"Nobody.")
    assert found(vector_bytes)
    _removed(hand_made, documents={"doc-7", "chat"})
    assert found(vector_bytes)  # removed from the answers, not from the disk
    compact_index(hand_made.index_dir)
    clear_versions(hand_made.index_dir, keep=0)
    reader = IndexReader.open(hand_made.index_dir)
    reader.verify()
    kept = [d for d in hand_made.documents if d.id not in (document.id, "chat")]
    _assert_holds(reader, hand_made, kept)
    assert not found(b"Nobody.")
    assert not found(vector_bytes)
    texts = [d.text for d in reader.documents()]
    assert document.text not in texts
    assert reader.manifest.rows == len(reader)
    assert reader.manifest.removed_rows == 0
    assert compact_index(hand_made.index_dir) == reader.version  # nothing to do


def test_compaction_keeps_the_bits_of_what_is_left(hand_made):
    _removed(hand_made, owners={"Lincoln"})
    before = IndexReader.open(hand_made.index_dir)
    compact_index(hand_made.index_dir)
    after = IndexReader.open(hand_made.index_dir)
    for name in ("names", "sums", "counts", "self_influence"):
        np.testing.assert_array_equal(getattr(after.owners, name), getattr(before.owners, name))
    np.testing.assert_array_equal(after.norms, before.norms)
    np.testing.assert_array_equal(
        np.concatenate(after.vector_shards()), np.concatenate(before.vector_shards())
    )


def test_an_index_of_nothing_is_not_written(hand_made):
    for owner in ("Lincoln", "Grant"):
        _removed(hand_made, owners={owner})
    ids = IndexReader.open(hand_made.index_dir).document_ids()
    _removed(hand_made, documents=set(ids))
    reader = IndexReader.open(hand_made.index_dir)
    assert (len(reader), reader.owners.sums.shape, reader.vector_shards()) == (0, (0, 12), [])
    with pytest.raises(InvalidInput, match="Every passage"):
        compact_index(hand_made.index_dir)


def test_going_back_and_forth(hand_made):
    second = _removed(hand_made, documents={"doc-7"}).version
    third = _removed(hand_made, documents={"doc-8"}).version
    assert roll_back(hand_made.index_dir) == second
    assert roll_back(hand_made.index_dir) == hand_made.version
    _assert_holds(IndexReader.open(hand_made.index_dir), hand_made, hand_made.documents)
    with pytest.raises(NotFound, match="is the oldest version"):
        roll_back(hand_made.index_dir)
    with pytest.raises(NotFound, match="no version '000009-"):
        roll_back(hand_made.index_dir, "000009-aaaaaaaaaaaa")
    assert roll_back(hand_made.index_dir, third) == third
    entries = list_versions(hand_made.index_dir)
    assert [(e.name, e.is_current) for e in entries] == [
        (hand_made.version, False), (second, False), (third, True)
    ]  # fmt: skip
    assert not any(entry.is_read for entry in entries)


def test_clearing_keeps_the_current_version_and_the_latest(hand_made):
    names = [hand_made.version]
    names += [_removed(hand_made, documents={f"doc-{i}"}).version for i in range(4)]
    roll_back(hand_made.index_dir, names[1])
    assert clear_versions(hand_made.index_dir, keep=2).versions == (names[0], names[2])
    assert [entry.name for entry in list_versions(hand_made.index_dir)] == [names[1], *names[3:]]


def test_two_writers_and_the_message_names_the_first(hand_made, start_in_child):
    begin, end = start_in_child
    ready, say = os.pipe()

    def write():
        with sole_writer(hand_made.index_dir), changing(hand_made.index_dir):
            os.write(say, b"w")
            signal.pause()

    child, words = begin(write)
    assert os.read(ready, 1) == b"w"
    for lock in (sole_writer(hand_made.index_dir), changing(hand_made.index_dir, wait_s=0.05)):
        with pytest.raises(IndexBusy, match=rf"process {child} on .*, since 20\d\d-"), lock:
            pass
    os.kill(child, signal.SIGKILL)
    end(child, words)
    _removed(hand_made, documents={"doc-7"})  # a lock whose holder is dead locks nothing


def test_a_lock_file_of_a_dead_process_is_no_lock(hand_made):
    (hand_made.index_dir / CHANGES).write_text('{"process": 1, "host": "h", "since": "2020"}')
    _removed(hand_made, documents={"doc-7"})
    lock = FileLock(hand_made.index_dir / CHANGES)
    assert lock.try_acquire()
    lock.close()


def test_a_folder_that_cannot_be_written_to_is_told():
    with pytest.raises(StorageFull, match="Writing /proc/index"):
        remove_documents(Path("/proc/index"), Selection({"d"}))
