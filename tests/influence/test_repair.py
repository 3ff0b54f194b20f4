"""What is derived is made again from the vectors; what is not is never made up."""

import numpy as np
import pytest

from influence.errors import IndexCorrupt
from influence.removal import Selection, remove_documents
from influence.repair import repair_index
from influence.store import IndexReader


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_owners_sums_come_back_with_the_same_bytes(hand_made, damage):
    version = remove_documents(hand_made.index_dir, Selection(owners={"Lincoln"})).version
    # Those of an owner that did not change are kept from the version before, so sum both anew.
    version = remove_documents(hand_made.index_dir, Selection({"chat", "doc-1"})).version
    path = hand_made.index_dir / "versions" / version / "owners.npz"
    before = path.read_bytes()
    path.unlink()
    if damage == "altered":
        path.write_bytes(before[:-1] + b"x")
    with pytest.raises(IndexCorrupt, match=r"owners\.npz"):
        IndexReader.open(hand_made.index_dir)
    assert repair_index(hand_made.index_dir) == (version, ("owners.npz",))
    assert path.read_bytes() == before
    assert repair_index(hand_made.index_dir) == (version, ())
    IndexReader.open(hand_made.index_dir).verify()


def test_sums_of_other_bits_are_published_as_a_version(hand_made):
    """Those made by hand were added up from vectors that float16 had not rounded."""
    path = hand_made.directory / "owners.npz"
    path.write_bytes(b"")
    version, damaged = repair_index(hand_made.index_dir)
    assert version != hand_made.version
    assert damaged == ("owners.npz",)
    reader = IndexReader.open(hand_made.index_dir)
    reader.verify()
    assert reader.version == version
    assert reader.manifest.history[-1].kind == "repaired"
    units = np.concatenate(reader.vector_shards()).astype(np.float64) * reader.norms[:, None]
    for name, total in zip(reader.owners.names, reader.owners.sums, strict=True):
        mine = reader.row_owners == name
        # float64 sums, rounded to float32 once
        scale = reader.norms[mine].sum()
        np.testing.assert_allclose(total, units[mine].sum(axis=0), rtol=0, atol=2**-23 * scale)


@pytest.mark.parametrize("name", ["vectors/00001.npy", "documents/00000.parquet", "manifest.json"])
def test_what_cannot_be_derived_is_named_and_left(hand_made, name):
    path = hand_made.directory / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IndexCorrupt, match=name):
        repair_index(hand_made.index_dir)
    assert len(list((hand_made.index_dir / "versions").iterdir())) == 1
