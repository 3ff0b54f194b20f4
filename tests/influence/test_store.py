"""Reading an index: everything that went in comes out, and damage is refused by name."""

import dataclasses
import json

import numpy as np
import pytest

from influence import store
from influence.errors import IndexCorrupt, IndexTooNew, IndexUnavailable, NotFound
from influence.manifest import FORMAT_VERSION
from influence.store import IndexReader

FILES = [
    "basis.safetensors",
    "owners.npz",
    *(
        f"{folder}/{number:05d}{suffix}"
        for number in range(3)
        for folder, suffix in (
            ("documents", ".parquet"),
            ("passages", ".parquet"),
            ("vectors", ".npy"),
            ("vectors", ".norms.npy"),
        )
    ),
]


def _read_everything(index_dir):
    """Open an index and use every file of it."""
    reader = IndexReader.open(index_dir)
    reader.verify()
    return reader


def test_passages_come_out_as_they_went_in(hand_made):
    reader = IndexReader.open(hand_made.index_dir)
    assert len(reader) == len(hand_made.rows) == 151
    for row, want in enumerate(hand_made.rows):
        got = reader.passage(row)
        assert got.id == f"{want.document_id}#{want.number}"
        assert (got.start, got.end) == (want.start, want.end)
        assert (got.target_tokens, got.loss_nats) == (want.target_tokens, want.loss_nats)
        assert got.tokens == want.tokens
        assert got.row == row


@pytest.mark.parametrize("row", [-1, 151, 10**9])
def test_a_row_that_is_not_there(hand_made, row):
    with pytest.raises(NotFound, match=f"Row {row}"):
        IndexReader.open(hand_made.index_dir).passage(row)


def test_documents_come_out_as_they_went_in(hand_made):
    reader = IndexReader.open(hand_made.index_dir)
    assert reader.document_ids() == [d.id for d in hand_made.documents]
    for want in hand_made.documents:
        got = reader.document(want.id)
        assert got.text == want.text
        for field in dataclasses.fields(want):
            assert getattr(got, field.name) == getattr(want, field.name)
        rows = [i for i, row in enumerate(hand_made.rows) if row.document_id == want.id]
        assert list(got.rows) == rows
    with pytest.raises(NotFound, match="'nobody'"):
        reader.document("nobody")


def test_vectors_and_norms_give_the_vectors_back(hand_made):
    reader = IndexReader.open(hand_made.index_dir)
    units = np.concatenate(reader.vector_shards()).astype(np.float64)
    back = units * reader.norms[:, None]
    error = np.linalg.norm(back - hand_made.vectors, axis=1)
    assert (error <= 2**-11 * np.linalg.norm(hand_made.vectors, axis=1)).all()
    assert [v.shape for v in reader.vector_shards()] == [(60, 12), (60, 12), (31, 12)]
    assert all(isinstance(v, np.memmap) and v.dtype == np.float16 for v in reader.vector_shards())
    assert reader.dims == 12


def test_vectors_of_some_rows(hand_made):
    reader = IndexReader.open(hand_made.index_dir)
    rows = [150, 0, 60, 59, 119, 120, 60]
    whole = np.concatenate(reader.vector_shards()).astype(np.float32)
    np.testing.assert_array_equal(reader.vectors(rows), whole[rows])
    assert reader.vectors([]).shape == (0, 12)


def test_rows_of_owners_and_sources(hand_made):
    reader = IndexReader.open(hand_made.index_dir)
    of = {d.id: d for d in hand_made.documents}
    owner = [of[r.document_id].owner for r in hand_made.rows]
    source = [of[r.document_id].source for r in hand_made.rows]
    assert reader.row_owners.tolist() == [o or "" for o in owner]
    assert reader.row_sources.tolist() == [s or "" for s in source]
    assert reader.rows_where().all()
    np.testing.assert_array_equal(
        reader.rows_where(owners=["Grant", "nobody"]), [o == "Grant" for o in owner]
    )
    np.testing.assert_array_equal(
        reader.rows_where(owners=["Lincoln"], sources=["sotu", "factbook"]),
        [o == "Lincoln" and s is not None for o, s in zip(owner, source, strict=True)],
    )
    assert not reader.rows_where(owners=[]).any()


def test_owner_totals(hand_made):
    totals = IndexReader.open(hand_made.index_dir).owners
    assert totals.names == ("", "Grant", "Lincoln")
    assert totals.counts.sum() == 151
    np.testing.assert_allclose(totals.sums.sum(axis=0), hand_made.vectors.sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(hand_made, name):
    (hand_made.directory / name).unlink()
    with pytest.raises(IndexCorrupt, match=f"{name} is missing"):
        IndexReader.open(hand_made.index_dir)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_truncated_file_is_named(hand_made, name, large, monkeypatch):
    monkeypatch.setattr(store, "VERIFIED_BYTES", 0 if large else 2**30)
    path = hand_made.directory / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexCorrupt, match=name):
        IndexReader.open(hand_made.index_dir)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_one_flipped_bit_anywhere_in_a_file_is_found_and_the_file_named(hand_made, name):
    path = hand_made.directory / name
    content = path.read_bytes()
    for at in np.linspace(0, len(content) - 1, 9).astype(int):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        path.write_bytes(flipped)
        with pytest.raises(IndexCorrupt, match=name):
            IndexReader.open(hand_made.index_dir)
    path.write_bytes(content)
    IndexReader.open(hand_made.index_dir)


@pytest.mark.parametrize("name", FILES)
def test_verify_finds_a_flipped_bit_in_an_index_too_large_to_hash_at_once(
    hand_made, name, monkeypatch
):
    monkeypatch.setattr(store, "VERIFIED_BYTES", 0)
    path = hand_made.directory / name
    reader = IndexReader.open(hand_made.index_dir)
    reader.verify()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)
    with pytest.raises(IndexCorrupt, match=f"{name} was altered"):
        reader.verify()
    path.unlink()
    with pytest.raises(IndexCorrupt, match=f"{name} is missing"):
        reader.verify()


@pytest.mark.parametrize("name", [n for n in FILES if n != "basis.safetensors"])
def test_garbage_of_the_right_size_is_never_read_as_numbers(hand_made, name, monkeypatch):
    monkeypatch.setattr(store, "VERIFIED_BYTES", 0)
    path = hand_made.directory / name
    path.write_bytes(bytes(range(256)) * (path.stat().st_size // 256 + 1))
    with path.open("r+b") as stream:
        stream.truncate(hand_made.manifest.files[name].size_bytes)

    def use():
        reader = IndexReader.open(hand_made.index_dir)
        reader.vector_shards()
        reader.document(reader.document_ids()[0])
        assert reader.owners.names

    with pytest.raises(IndexCorrupt, match=f"{name} is not what the indexer wrote"):
        use()


@pytest.mark.parametrize("of", ["dtype", "shape"])
def test_an_array_of_another_kind_is_refused(hand_made, of, monkeypatch):
    monkeypatch.setattr(store, "VERIFIED_BYTES", 0)
    path = hand_made.directory / "vectors/00001.npy"
    header = (b"'<f2'", b"'<i2'") if of == "dtype" else (b"(60, 12)", b"(12, 60)")
    path.write_bytes(path.read_bytes().replace(*header))
    with pytest.raises(IndexCorrupt, match=r"vectors/00001\.npy"):
        IndexReader.open(hand_made.index_dir).vector_shards()


def test_pickle_is_never_loaded(hand_made, monkeypatch):
    monkeypatch.setattr(store, "VERIFIED_BYTES", 0)
    path = hand_made.directory / "vectors/00000.norms.npy"
    size = path.stat().st_size
    with path.open("wb") as stream:
        np.save(stream, np.array([{"a": 1}] * 2, dtype=object), allow_pickle=True)
        stream.truncate(size)
    with pytest.raises(IndexCorrupt, match="norms"):
        IndexReader.open(hand_made.index_dir)


def test_a_folder_without_an_index(tmp_path):
    with pytest.raises(IndexUnavailable, match=r"no file CURRENT.*whence index"):
        IndexReader.open(tmp_path)
    with pytest.raises(IndexUnavailable, match="nowhere"):
        IndexReader.open(tmp_path / "nowhere")


def test_current_that_names_nothing_is_told(hand_made):
    current = hand_made.index_dir / "CURRENT"
    for content in (b"", b"\xff\xfe\0", b"../../etc", b"000001", b"x" * 1000):
        current.write_bytes(content)
        with pytest.raises(IndexCorrupt, match="CURRENT names no version"):
            IndexReader.open(hand_made.index_dir)
    current.write_bytes(b"000009-0123456789ab\n")
    with pytest.raises(IndexCorrupt, match=r"000009-0123456789ab.*missing"):
        IndexReader.open(hand_made.index_dir)


def test_a_newer_format_is_told_apart_from_damage(hand_made):
    path = hand_made.directory / "manifest.json"
    newer = {**json.loads(path.read_bytes()), "format_version": FORMAT_VERSION + 1}
    path.write_text(json.dumps(newer))
    with pytest.raises(IndexTooNew, match="Upgrade Whence"):
        IndexReader.open(hand_made.index_dir)


def test_a_changed_setting_in_the_manifest_is_noticed(hand_made):
    """It would change every score."""
    path = hand_made.directory / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"damping": 0.1', b'"damping": 0.2'))
    with pytest.raises(IndexCorrupt, match=r"manifest\.json was altered"):
        IndexReader.open(hand_made.index_dir)


def test_a_file_that_the_manifest_does_not_list_is_not_read(hand_made):
    (hand_made.directory / "vectors" / "00003.npy").write_bytes(b"stray")
    assert len(_read_everything(hand_made.index_dir)) == 151


def test_a_chat_comes_back_with_its_messages(hand_made):
    (chat,) = [d for d in hand_made.documents if d.messages]
    assert IndexReader.open(hand_made.index_dir).document("chat").messages == chat.messages


def test_all_documents_stream_in_the_order_of_the_corpus(hand_made):
    reader = IndexReader.open(hand_made.index_dir)
    streamed = list(reader.documents())
    assert streamed == [reader.document(d.id) for d in hand_made.documents]
