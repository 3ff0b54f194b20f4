"""A small index made by hand: no model, every number known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from influence.basis import Basis, LayerBasis, save_basis
from influence.documents import Document, Message
from influence.manifest import (
    CorpusIdentity,
    CoverageEntry,
    FitEntry,
    IndexSettings,
    LayerEntry,
    Manifest,
    ModelIdentity,
    Shard,
    plan_sha256,
)
from influence.staging import Staging
from influence.tables import PassageRow

PLAN = {"corpus": "by hand", "settings": {"rank": 2}}
DIMS = 12


def _documents() -> list[Document]:
    """Of several owners and sources, and of both shapes."""
    found = [
        Document(
            id=f"doc-{i}",
            plain=f'Text number {i}: ünïcödé 🐚, "quotes" and\nnew lines.',
            title=f"Title {i}" if i % 2 else None,
            source=("sotu", "factbook", None)[i % 3],
            owner=("Lincoln", None, "Grant")[i % 3],
            licence="CC0",
            url=f"https://example.org/{i}",
            metadata={"year": 1860 + i, "nested": {"list": [1, None, "ü"]}},
        )
        for i in range(100)
    ]
    chat = (Message("user", "Who?"), Message("assistant", "Nobody."))
    return [*found, Document(id="chat", messages=chat, owner="Grant")]


@dataclass(frozen=True)
class HandMade:
    """An index folder and all that went in."""

    index_dir: Path
    version: str
    manifest: Manifest
    documents: list[Document]
    rows: list[PassageRow]
    vectors: np.ndarray

    @property
    def directory(self) -> Path:
        return self.index_dir / "versions" / self.version


def _write_index(index_dir: Path) -> HandMade:
    """Three shards; every document has one or two passages, some of them across shards."""
    documents = _documents()
    rows = [
        PassageRow(d.id, n, 3 * n, 3 * n + 5, 2 + n, 1.5 * i, 4 + n)
        for i, d in enumerate(documents)
        for n in range(1 + i % 2)
    ]
    first = {d.id: d for d in documents}
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(len(rows), DIMS)).astype(np.float32)
    vectors *= 10.0 ** generator.integers(-3, 4, size=(len(rows), 1))
    staging = Staging.open(index_dir, PLAN)
    shards = []
    for number, start in enumerate(range(0, len(rows), 60)):
        part = rows[start : start + 60]
        staging.write_shard(
            number,
            vectors[start : start + 60],
            part,
            [first[r.document_id] for r in part if r.number == 0],
            {"left_out": []},
        )
        shards.append(Shard(name=f"{number:05d}", rows=len(part)))
    owners = np.array([first[r.document_id].owner or "" for r in rows])
    names = sorted(set(owners.tolist()))
    with staging.file("owners.npz") as path, path.open("wb") as stream:
        np.savez(
            stream,
            names=np.array(names),
            sums=np.stack([vectors[owners == n].sum(axis=0) for n in names]),
            counts=np.array([(owners == n).sum() for n in names]),
            self_influence=np.array([np.square(vectors[owners == n]).sum() for n in names]),
        )
    layer = LayerBasis("a", "a", torch.eye(3, 4), torch.eye(4, 5), torch.ones(4, 3).double())
    with staging.file("basis.safetensors") as path:
        save_basis(Basis((layer,), 0.1, DIMS, 0), path)
    manifest = Manifest(
        plan_sha256=plan_sha256(PLAN),
        model=ModelIdentity(
            name="m", weights_sha256="a" * 64, tokenizer_sha256="b" * 64, dtype="float32"
        ),
        corpus=CorpusIdentity(
            name="by hand",
            fingerprint="c" * 64,
            documents=len(documents),
            passages=len(rows),
            tokens=1000,
            target_tokens=900,
        ),
        settings=IndexSettings(joint_damping=float("inf")),
        vector_dims=DIMS,
        coordinates=DIMS,
        sketch_noise=0.0,
        rows=len(rows),
        shards=tuple(shards),
        layers=(
            LayerEntry(
                name="a",
                leader="a",
                d_in=4,
                d_out=5,
                r_in=3,
                r_out=4,
                share_kept_in=0.9,
                share_kept_out=0.8,
            ),
        ),
        coverage=CoverageEntry(share_of_linear=1.0, share_of_all=0.5, left_out={"head": 3}),
        fit=FitEntry(
            passages=3,
            covariance_passages=3,
            covariance_tokens=30,
            share_of_curvature=0.7,
            joint_rank=0,
        ),
        files=staging.describe_files(shards, ["basis.safetensors", "owners.npz"]),
    )
    version = staging.publish(manifest)
    return HandMade(index_dir, version, manifest, documents, rows, vectors)


@pytest.fixture
def hand_made(tmp_path) -> HandMade:
    """A published index whose contents are known."""
    return _write_index(tmp_path / "index")


@pytest.fixture(scope="session")
def write_index():
    """Makes the same index in another folder."""
    return _write_index
