import json
import math
import os

import numpy as np
import pytest

from influence.documents import Document
from influence.errors import BuildConflict, StorageFull
from influence.manifest import plan_sha256
from influence.staging import Staging
from influence.store import IndexReader
from influence.tables import PassageRow
from influence.versions import make_current, published_version

PLAN = {"model": {"name": "m"}, "settings": {"rank": 4, "damping": 0.1}, "corpus": "c"}


def _tree(folder):
    """Every file with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _shard(staging, number=0, *, seed=0, rows=3):
    vectors = np.random.default_rng(seed).normal(size=(rows, 5)).astype(np.float32)
    passages = [PassageRow("d", n, 0, 4, 2, 1.0, 3) for n in range(rows)]
    staging.write_shard(number, vectors, passages, [Document("d", plain="text")], {"left_out": []})
    return vectors


def test_vectors_are_stored_as_unit_vectors_and_a_norm(tmp_path):
    staging = Staging.open(tmp_path, PLAN)
    vectors = np.random.default_rng(0).normal(size=(40, 300)) * 10.0 ** np.arange(-20, 20)[:, None]
    vectors = vectors.astype(np.float32)
    rows = [PassageRow("d", n, 0, 4, 2, 1.0, 3) for n in range(40)]
    staging.write_shard(0, vectors, rows, [], {})
    units = np.load(staging.directory / "vectors/00000.npy", allow_pickle=False)
    norms = np.load(staging.directory / "vectors/00000.norms.npy", allow_pickle=False)
    assert units.dtype == np.float16
    assert norms.dtype == np.float32
    wide = vectors.astype(np.float64)
    np.testing.assert_allclose(norms, np.linalg.norm(wide, axis=1), rtol=1e-7)
    exact = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    # fp16 keeps 11 bits: half a unit of the last is 2^-11 relative, 2^-25 below its least normal.
    np.testing.assert_allclose(units.astype(np.float64), exact, rtol=2**-11 * 1.001, atol=2**-24)


def test_a_build_is_continued_only_with_the_same_plan(tmp_path):
    Staging.open(tmp_path, PLAN)
    Staging.open(tmp_path, json.loads(json.dumps(PLAN)))
    other = {**PLAN, "settings": {"rank": 8, "damping": 0.1}, "corpus": "d"}
    with pytest.raises(BuildConflict, match=r"in corpus, settings\.rank\. .*--restart"):
        Staging.open(tmp_path, other)


def test_a_refused_build_leaves_the_other_alone(tmp_path):
    staging = Staging.open(tmp_path, PLAN)
    _shard(staging)
    before = _tree(tmp_path)
    with pytest.raises(BuildConflict):
        Staging.open(tmp_path, {**PLAN, "corpus": "d"})
    assert _tree(tmp_path) == before
    assert Staging.open(tmp_path, PLAN).shard_rows(0) == 3


def test_restart_throws_the_unfinished_build_away(tmp_path):
    _shard(Staging.open(tmp_path, PLAN))
    again = Staging.open(tmp_path, {**PLAN, "corpus": "d"}, restart=True)
    assert again.shard_rows(0) is None
    assert list(_tree(tmp_path)) == ["building/plan.json"]


def test_a_restart_that_was_killed_leaves_no_shard_of_the_old_plan(tmp_path):
    """Removing a folder is not atomic: the plan can be gone and shards still there."""
    staging = Staging.open(tmp_path, PLAN)
    _shard(staging)
    (staging.directory / "plan.json").unlink()
    assert Staging.open(tmp_path, {**PLAN, "corpus": "d"}).shard_rows(0) is None


def test_what_a_killed_process_left_over_is_cleared(tmp_path):
    staging = Staging.open(tmp_path, PLAN)
    _shard(staging)
    before = _tree(tmp_path)
    for name in ("vectors/.00001.npy.99.tmp", ".basis.safetensors.99.tmp", "../.CURRENT.99.tmp"):
        (staging.directory / name).write_bytes(b"half")
    Staging.open(tmp_path, PLAN)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered"])
@pytest.mark.parametrize("folder", ["vectors", "passages", "documents"])
def test_a_shard_whose_files_are_not_intact_is_written_again(tmp_path, folder, damage):
    staging = Staging.open(tmp_path, PLAN)
    _shard(staging)
    assert staging.shard_rows(0) == 3
    assert staging.shard_rows(1) is None
    path = next((staging.directory / folder).iterdir())
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "truncated" else content[:-1] + b"\x7f")
    assert staging.shard_rows(0) is None
    _shard(staging)
    assert path.read_bytes() == content


def test_the_record_of_a_shard_is_written_last(tmp_path, monkeypatch):
    staging = Staging.open(tmp_path, PLAN)
    order = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(str(b)), replace(a, b)))
    _shard(staging)
    assert order[-1].endswith("shards/00000.json")
    assert len(order) == 5


def test_equal_plans_have_equal_names_whatever_the_order_of_their_keys():
    assert plan_sha256(PLAN) == plan_sha256(dict(reversed(PLAN.items())))
    assert plan_sha256(PLAN) != plan_sha256({**PLAN, "corpus": "d"})


def test_a_published_version_holds_what_its_manifest_lists_and_nothing_else(hand_made):
    assert hand_made.version.startswith("000001-")
    assert not (hand_made.index_dir / "building").exists()
    assert sorted(p.name for p in hand_made.index_dir.iterdir()) == ["CURRENT", "versions"]
    names = set(_tree(hand_made.directory))
    assert names == {*hand_made.manifest.files, "manifest.json"}


def test_the_same_input_gives_the_same_bytes(tmp_path, write_index):
    first, second = write_index(tmp_path / "a"), write_index(tmp_path / "b")
    assert first.version == second.version
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")


def test_a_published_plan_is_found_again(hand_made):
    plan = {"corpus": "by hand", "settings": {"rank": 2}}
    assert published_version(hand_made.index_dir, plan) == hand_made.version
    assert published_version(hand_made.index_dir, {**plan, "corpus": "x"}) is None
    assert published_version(hand_made.index_dir / "nowhere", plan) is None


@pytest.mark.parametrize("damaged", ["manifest.json", "vectors/00001.npy", "owners.npz"])
def test_a_damaged_version_is_built_again_beside_it(hand_made, write_index, damaged):
    """The message of a damaged index advises to build it again; that must help."""
    path = hand_made.directory / damaged
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    plan = {"corpus": "by hand", "settings": {"rank": 2}}
    assert published_version(hand_made.index_dir, plan) is None
    again = write_index(hand_made.index_dir)
    assert again.version == hand_made.version.replace("000001", "000002")
    assert len(IndexReader.open(hand_made.index_dir)) == len(hand_made.rows)


def test_a_build_that_was_killed_between_version_and_current_is_finished(hand_made):
    (hand_made.index_dir / "CURRENT").unlink()
    (hand_made.directory / "shards").mkdir()
    (hand_made.directory / "plan.json").write_text("{}")
    make_current(hand_made.index_dir, hand_made.version)
    assert IndexReader.open(hand_made.index_dir).version == hand_made.version
    assert set(_tree(hand_made.directory)) == {*hand_made.manifest.files, "manifest.json"}


def test_a_file_where_the_folder_should_be_is_told(tmp_path):
    (tmp_path / "index").write_bytes(b"")
    with pytest.raises(StorageFull, match="index failed: a file is in the way"):
        Staging.open(tmp_path / "index", PLAN)


def test_infinite_settings_are_part_of_a_plan(tmp_path):
    plan = {"joint_damping": math.inf}
    Staging.open(tmp_path, plan)
    Staging.open(tmp_path, plan)
    with pytest.raises(BuildConflict, match="joint_damping"):
        Staging.open(tmp_path, {"joint_damping": 1.0})
