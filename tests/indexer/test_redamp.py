"""A redamped index against one that was built with those dampings."""

import json
import math

import numpy as np
import pytest
import torch

from indexer.build import build_index
from indexer.progress import Silence
from indexer.redamp import redamp_index
from influence.basis import basis_of
from influence.errors import BuildConflict, IndexCorrupt, InvalidInput
from influence.manifest import IndexSettings
from influence.redamping import FP16_ROUNDING, rescaled
from influence.staging import Staging
from influence.store import IndexReader

WORDS = ["king", "queen", "river", "mountain", "city", "gold", "silver", "north", "war", "peace"]


def _records(n: int = 20) -> list[dict]:
    generator = np.random.default_rng(7)
    return [
        {
            "id": f"d{i}",
            "text": " ".join(generator.choice(WORDS, size=(6, 12, 45)[i % 3])),
            "owner": ("Lincoln", "Grant", None)[i % 3],
        }
        for i in range(n)
    ]


@pytest.fixture
def llama(new_llama, tokenizer, as_loaded):
    return as_loaded(new_llama(num_hidden_layers=1), tokenizer)


def _units(reader: IndexReader) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(reader.vector_shards()).astype(np.float32))


def _assert_equal_within_rounding(before: IndexReader, got: IndexReader, want: IndexReader):
    """Both round their own numbers once; the redamped one has a stretched rounding besides.

    ``z' = T (z + n e)`` with ``‖e‖ ≤ ε`` is off by ``‖T‖ n ε`` at most, and normalising a vector
    that is off by a share ``s`` moves its direction by ``2 s`` at most.
    """
    old, new = basis_of(before), basis_of(got)
    dense = rescaled(torch.eye(before.dims), old, new)  # Tᵀ, but the norm is the same
    stretch = float(torch.linalg.matrix_norm(dense, 2))
    shares = stretch * before.norms * FP16_ROUNDING / want.norms
    allowed = torch.from_numpy(2 * shares + 2 * FP16_ROUNDING)
    assert ((_units(got) - _units(want)).norm(dim=1) <= allowed).all()
    np.testing.assert_array_less(np.abs(got.norms / want.norms - 1), shares + 1e-4)
    rows = {owner: got.row_owners == owner for owner in got.owners.names}
    for number, owner in enumerate(got.owners.names):
        limit = float((want.norms * allowed.numpy())[rows[owner]].sum())
        off = np.linalg.norm(got.owners.sums[number] - want.owners.sums[number])
        assert off <= 2 * limit
    # A query is not rounded, but its basis comes from joint vectors in float32.
    probe = torch.randn(6, new.coordinates, generator=torch.Generator().manual_seed(0))
    exact = basis_of(want).whitened(probe)
    assert (new.whitened(probe) - exact).norm() < 1e-3 * exact.norm()


CASES = {
    "joint, sketched": ({"dims": 64}, {"joint_damping": 0.1}),
    "joint off, sketched": ({"dims": 64}, {"joint_damping": math.inf}),
    "joint on, sketched": ({"dims": 64, "joint_damping": math.inf}, {"joint_damping": 0.5}),
    "layers": ({"dims": 10_000}, {"damping": 0.5}),
    "both": ({"dims": 10_000}, {"damping": 0.02, "joint_damping": 3.0}),
    "both, raw": ({"dims": 10_000, "hessian": "raw"}, {"damping": 0.5, "joint_damping": 0.3}),
    "layers, kfac": ({"dims": 10_000, "hessian": "kfac"}, {"damping": 0.5}),
    "layers, no joint": ({"dims": 10_000, "joint_damping": math.inf}, {"damping": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_redamped_index_is_the_index_built_with_that_damping(llama, build, case):
    settings, changes = CASES[case]
    settings = {"rank": 6, **settings}
    before = build(_records(), llama, **settings)
    want = build(_records(), llama, "other", **{**settings, **changes})
    version = redamp_index(before.index_dir, **changes, reporter=Silence())
    got = IndexReader.open(before.index_dir)
    assert got.version == version != before.version
    got.verify()
    assert got.manifest.settings == want.manifest.settings
    assert got.manifest.fit.joint_rank == want.manifest.fit.joint_rank
    assert got.manifest.layers == want.manifest.layers
    assert got.manifest.history[-1].parent == before.version
    assert got.manifest.plan_sha256 not in (before.manifest.plan_sha256, want.manifest.plan_sha256)
    assert got.document("d2") == want.document("d2")
    assert [got.passage(i) for i in range(len(got))] == [want.passage(i) for i in range(len(want))]
    assert got.owners.names == want.owners.names
    _assert_equal_within_rounding(before, got, want)


@pytest.fixture
def small(llama, build):
    """Sketched, with a picked damping and something measured."""
    return build(_records(), llama, rank=6, dims=64)


def test_the_version_before_stays_as_it_is(small):
    redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence())
    small.verify()
    shown = sorted(p.name for p in small.index_dir.iterdir() if not p.name.startswith("."))
    assert shown == ["CURRENT", "versions"]  # locks are hidden
    assert len(list((small.index_dir / "versions").iterdir())) == 2
    there = IndexReader.open(small.index_dir)
    files = {str(p.relative_to(there.directory)) for p in there.directory.rglob("*") if p.is_file()}
    assert files == {*there.manifest.files, "manifest.json"}


def test_the_same_again_is_the_same_version(small):
    first = redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence())
    again = redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence())
    assert first == again
    (small.index_dir / "CURRENT").write_text(f"{small.version}\n")
    assert redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence()) == first
    assert IndexReader.open(small.index_dir).version == first


def test_the_same_dampings_make_no_version(small):
    version = redamp_index(small.index_dir, damping=0.1, joint_damping=1.0, reporter=Silence())
    assert version == small.version


def test_there_and_back_is_where_it_began_but_for_rounding(small):
    redamp_index(small.index_dir, joint_damping=0.2, reporter=Silence())
    there = IndexReader.open(small.index_dir)
    redamp_index(small.index_dir, joint_damping=1.0, reporter=Silence())
    back = IndexReader.open(small.index_dir)
    assert back.manifest.history[-1].parent == there.version
    cosines = torch.cosine_similarity(_units(back), _units(small))
    assert cosines.min() > 1 - 1e-5


def test_a_sketched_index_says_why_its_layers_cannot_change(small):
    with pytest.raises(InvalidInput, match=r"cannot be taken out .*whence index --damping 0\.5"):
        redamp_index(small.index_dir, damping=0.5, reporter=Silence())
    assert not (small.index_dir / "building").exists()


def test_what_was_measured_with_other_dampings_is_not_kept(llama, build, tmp_path):
    reader = build(_records(), llama, rank=6, dims=64, damping="auto", joint_damping="auto")
    assert set(reader.manifest.fit.picked) == {"damping", "joint_damping"}
    picked = reader.manifest.settings.joint_damping
    other = 0.5 if picked != 0.5 else 0.7
    redamp_index(reader.index_dir, joint_damping=other, reporter=Silence())
    manifest = IndexReader.open(reader.index_dir).manifest
    assert set(manifest.fit.picked) == {"damping"}
    assert manifest.settings.damping == reader.manifest.settings.damping
    assert manifest.quality == ()
    assert manifest.calibration.null_best_z == ()


def test_damage_is_not_copied_into_a_new_version(small):
    path = next(small.directory.glob("documents/*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IndexCorrupt, match=path.name):
        redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence())


def test_an_unfinished_build_is_in_the_way_until_it_is_thrown_away(small):
    Staging.open(small.index_dir, {"settings": {"rank": 9}})
    with pytest.raises(BuildConflict, match="--restart"):
        redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence())
    version = redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence(), restart=True)
    assert IndexReader.open(small.index_dir).version == version


class _Stopping(Silence):
    """Stops when the first shard is rescaled."""

    def step(self, what, *, total, unit):
        raise KeyboardInterrupt


def test_an_interrupted_redamping_is_continued(small):
    with pytest.raises(KeyboardInterrupt):
        redamp_index(small.index_dir, joint_damping=3.0, reporter=_Stopping())
    assert IndexReader.open(small.index_dir).version == small.version
    redamp_index(small.index_dir, joint_damping=3.0, reporter=Silence())
    IndexReader.open(small.index_dir).verify()


def test_what_was_picked_is_a_number_in_the_manifest(llama, build):
    reader = build(_records(), llama, rank=6, dims=64, damping="auto", joint_damping="auto")
    settings = json.loads((reader.directory / "manifest.json").read_bytes())["settings"]
    assert IndexSettings(**settings) == reader.manifest.settings
    assert isinstance(reader.manifest.settings.damping, float)
    assert isinstance(reader.manifest.settings.joint_damping, float)
    # Asked for again, it is found by what was asked, not by what was picked.
    version = build_index(
        str(reader.index_dir.with_suffix(".jsonl")),
        llama,
        reader.index_dir,
        reader.manifest.settings.model_copy(update={"damping": "auto", "joint_damping": "auto"}),
        reporter=Silence(),
    )
    assert version == reader.version
