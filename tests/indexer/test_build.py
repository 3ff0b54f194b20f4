"""From corpus to published index: what is in it, and what happens when something goes wrong."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from indexer.build import build_index
from indexer.progress import Reporter, Silence
from influence.attachment import attach_quality
from influence.documents import Document
from influence.errors import (
    BuildConflict,
    CorpusError,
    IndexCorrupt,
    NumericalError,
)
from influence.manifest import Quality
from influence.removal import Selection, remove_documents
from influence.store import NO_OWNER, IndexReader
from influence.tokens import document_passages

KINDS = ["king", "queen", "river", "mountain", "city", "ship", "gold", "silver", "bread", "wine"]
PLACES = ["north", "south", "east", "west", "war", "peace", "treaty", "people", "miles", "area"]
WORDS = [*KINDS, *PLACES]


def _records(n: int = 24) -> list[dict]:
    """Plain texts of several lengths, owners and sources; some span several passages."""
    generator = np.random.default_rng(7)
    return [
        {
            "id": f"d{i}",
            "text": " ".join(generator.choice(WORDS, size=(6, 6, 45)[i % 3])),
            "owner": ("Lincoln", "Grant", None)[i % 3],
            "source": ("sotu", "factbook")[i % 2],
            "title": f"Title {i}",
        }
        for i in range(n)
    ]


def _tree(folder: Path) -> dict[str, bytes]:
    """Every file but the locks, which say who held them and when."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


@pytest.fixture
def llama(new_llama, tokenizer, as_loaded):
    return as_loaded(new_llama(num_hidden_layers=1), tokenizer)


def test_the_index_holds_every_passage_of_the_corpus(loaded, build, tmp_path):
    records = _records()
    index = build(records, loaded)
    index.verify()
    documents = [Document(r["id"], plain=r["text"]) for r in records]
    passages = [p for d in documents for p in document_passages(d, loaded.tokenizer, max_length=32)]
    assert len(index) == len(passages)
    assert [index.passage(i).id for i in range(len(index))] == [p.id for p in passages]
    for row, passage in enumerate(passages):
        stored = index.passage(row)
        assert (stored.start, stored.end) == (passage.start, passage.end)
        assert stored.target_tokens == sum(passage.tokens.targets)
    for record in records:
        document = index.document(record["id"])
        assert document.text == record["text"]
        assert document.owner == record["owner"]
        assert [index.passage(r).document_id for r in document.rows] == [record["id"]] * len(
            document.rows
        )
    manifest = index.manifest
    assert manifest.corpus.documents == 24
    assert manifest.corpus.passages == manifest.rows == len(passages)
    assert manifest.corpus.tokens == sum(len(p.tokens) for p in passages)
    assert manifest.corpus.target_tokens == sum(sum(p.tokens.targets) for p in passages)
    assert manifest.padding_share < 0.05
    assert manifest.coverage.share_of_linear == 1.0
    assert manifest.vector_dims == 256 == index.dims
    assert manifest.model.weights_sha256 == loaded.weights_sha256
    assert manifest.left_out_passages == ()
    names = sorted(p.name for p in (tmp_path / "index").iterdir())
    assert names == [".changes.lock", ".entrance.lock", ".writers.lock", "CURRENT", "versions"]


def test_norms_and_units_are_sound(llama, build):
    index = build(_records(), llama)
    units = np.concatenate(index.vector_shards()).astype(np.float64)
    # 256 coordinates, each off by 2^-11 of itself at most.
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, rtol=2**-11)
    assert (index.norms > 0).all()


def test_owner_totals_are_the_sums_of_the_stored_vectors(llama, build):
    index = build(_records(), llama)
    vectors = np.concatenate(index.vector_shards()).astype(np.float64) * index.norms[:, None]
    totals = index.owners
    assert totals.names == (NO_OWNER, "Grant", "Lincoln")
    for i, name in enumerate(totals.names):
        mine = vectors[
            [
                index.document(index.passage(r).document_id).owner == (name or None)
                for r in range(len(index))
            ]
        ]
        assert totals.counts[i] == len(mine)
        scale = np.abs(mine).sum(axis=0).max()
        np.testing.assert_allclose(totals.sums[i], mine.sum(axis=0), rtol=1e-6, atol=1e-7 * scale)
        np.testing.assert_allclose(
            totals.self_influence[i],
            np.square(index.norms[index.rows_where(owners=[name])].astype(np.float64)).sum(),
            rtol=1e-6,
        )
    assert totals.counts.sum() == len(index)


def test_the_same_input_gives_the_same_bytes(llama, build, tmp_path):
    build(_records(), llama, "a")
    again = tmp_path / "elsewhere"
    again.mkdir()
    corpus = again / "a.jsonl"
    corpus.write_bytes((tmp_path / "a.jsonl").read_bytes())
    settings = IndexReader.open(tmp_path / "a").manifest.settings
    build_index(str(corpus), llama, again / "index", settings, reporter=Silence())
    assert _tree(again / "index") == _tree(tmp_path / "a")


def test_nothing_of_time_or_place_is_in_the_manifest(llama, build, tmp_path):
    index = build(_records(), llama)
    content = (index.directory / "manifest.json").read_text()
    assert str(tmp_path) not in content
    assert os.uname().nodename not in content


def test_a_second_build_with_the_same_plan_does_nothing(llama, build, tmp_path):
    build(_records(), llama)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "index" / "versions").rglob("*")}
    calls = []
    llama.model.base_model.register_forward_hook(lambda *_: calls.append(1))
    build(_records(), llama)
    assert calls == []
    after = (tmp_path / "index" / "versions").rglob("*")
    assert {p: p.stat().st_mtime_ns for p in after} == before
    assert not (tmp_path / "index" / "building").exists()


def test_the_same_build_again_keeps_what_was_measured(llama, build):
    first = build(_records(), llama)
    said = {"protocol": "12 queries", "date": "2026-03-01"}
    figures = tuple(
        Quality.model_validate({"measure": name, "value": 0.5, "low": 0.4, "high": 0.6, **said})
        for name in ("lds", "recall@1")
    )
    version = attach_quality(first.index_dir, first.version, figures[:1])
    version = attach_quality(first.index_dir, version, figures[1:])
    again = build(_records(), llama)
    assert again.version == version
    assert again.manifest.quality == figures
    other = build(_records(), llama, damping=0.3)
    assert other.manifest.quality == ()
    assert build(_records(), llama).version == version  # back to the first, as it was measured
    remove_documents(first.index_dir, Selection(documents=["d1"]))
    with pytest.raises(BuildConflict, match="removed since"):
        build(_records(), llama)


def test_other_settings_make_another_version_and_keep_the_first(llama, build, tmp_path):
    first = build(_records(), llama)
    before = _tree(first.directory)
    second = build(_records(), llama, damping=0.3)
    assert second.version.startswith("000002-")
    assert _tree(first.directory) == before
    third = build(_records(), llama)  # the first again: found, not built
    assert third.version == first.version
    assert len(list((tmp_path / "index" / "versions").iterdir())) == 2


def test_a_published_index_has_a_number_where_the_dims_were_auto(llama, build):
    manifest = build(_records(), llama, dims="auto").manifest
    assert manifest.settings.dims == 16_384
    assert manifest.vector_dims == min(16_384, manifest.coordinates)


def test_a_changed_corpus_is_another_plan(llama, build):
    first = build(_records(), llama)
    records = _records()
    records[3]["text"] += " king"
    assert build(records, llama).version != first.version
    records = _records()
    records[3]["owner"] = "Adams"
    assert build(records, llama).manifest.plan_sha256 != first.manifest.plan_sha256


class _Stopping(Reporter):
    """Stops the build in the middle of the logging, as Ctrl-C would."""

    def __init__(self) -> None:
        self.tokens = 0

    def note(self, message):
        pass

    def step(self, what, *, total, unit):
        from contextlib import contextmanager

        @contextmanager
        def steps():
            def advance(units):
                if "Logging" in what:
                    self.tokens += units
                    if self.tokens > total / 2:
                        raise KeyboardInterrupt

            yield advance

        return steps()


def _interrupted(loaded, tmp_path, records, settings) -> tuple[str, Path]:
    corpus = tmp_path / "index.jsonl"
    corpus.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(KeyboardInterrupt):
        build_index(str(corpus), loaded, tmp_path / "index", settings, reporter=_Stopping())
    return str(corpus), tmp_path / "index"


def test_an_interrupted_build_is_continued_and_ends_the_same(
    llama, build, small_settings, tmp_path
):
    build(_records(), llama, "whole")
    _interrupted(llama, tmp_path, _records(), small_settings())
    assert (tmp_path / "index/building/shards/00000.json").exists()
    tokens = []
    llama.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    index = build(_records(), llama)
    # A whole build computes them three times, twice to fit and once to log. Here the rest is left.
    assert sum(tokens) < 0.9 * index.manifest.corpus.tokens
    # The name of the corpus file is part of the manifest; nothing else differs.
    whole = IndexReader.open(tmp_path / "whole")
    assert index.manifest.files == whole.manifest.files


def test_an_unfinished_build_with_other_settings_is_in_the_way(llama, small_settings, tmp_path):
    corpus, index_dir = _interrupted(llama, tmp_path, _records(), small_settings())
    before = _tree(index_dir)
    other = small_settings(rank=6)
    with pytest.raises(BuildConflict, match=r"settings.*--restart"):
        build_index(corpus, llama, index_dir, other, reporter=Silence())
    assert _tree(index_dir) == before
    build_index(corpus, llama, index_dir, other, reporter=Silence(), restart=True)
    assert IndexReader.open(index_dir).manifest.settings.rank == 6


def test_the_conflict_names_the_settings_that_differ(llama, small_settings, tmp_path):
    corpus, index_dir = _interrupted(llama, tmp_path, _records(), small_settings())
    other = small_settings(damping=0.7, seed=3)
    with pytest.raises(BuildConflict, match=r"settings\.damping, settings\.seed"):
        build_index(corpus, llama, index_dir, other, reporter=Silence())


def test_a_damaged_index_is_really_built_again(llama, build):
    """As the message of the damaged one advises."""
    index = build(_records(), llama)
    path = index.directory / "vectors/00000.npy"
    path.write_bytes(path.read_bytes()[:-2] + b"\x11\x22")
    with pytest.raises(IndexCorrupt, match="build the index again"):
        IndexReader.open(index.index_dir)
    again = build(_records(), llama)
    assert again.version != index.version
    again.verify()


def test_an_empty_corpus_leaves_no_index(llama, build, tmp_path):
    with pytest.raises(CorpusError, match="no document"):
        build([], llama)
    assert not (tmp_path / "index").exists()


def test_settings_longer_than_the_context_are_cut_to_it(new_llama, tokenizer, as_loaded, build):
    loaded = as_loaded(new_llama(num_hidden_layers=1), tokenizer)
    index = build(_records(), loaded, max_length=100_000)
    assert index.manifest.settings.max_length == loaded.context_length


BAD_TOKEN_WORD = "treaty"


def _spoilt(new_llama, tokenizer, as_loaded):
    """A model in which one word gives NaN."""
    model = new_llama(tie_word_embeddings=False, num_hidden_layers=1)
    ids = tokenizer(f" {BAD_TOKEN_WORD}")["input_ids"]
    model.model.embed_tokens.weight.data[ids[-1], 0] = float("nan")
    return as_loaded(model, tokenizer)


def test_passages_without_a_finite_gradient_are_counted_and_named(
    new_llama, tokenizer, as_loaded, build
):
    loaded = _spoilt(new_llama, tokenizer, as_loaded)
    records = [r for r in _records() if BAD_TOKEN_WORD not in r["text"]]
    clean = build(records, loaded, "clean")
    bad = [{"id": f"bad{i}", "text": f"the {BAD_TOKEN_WORD} of the king"} for i in range(3)]
    index = build([*records[:5], *bad, *records[5:]], loaded)
    assert index.manifest.left_out_passages == tuple(
        f"bad{i}#0: its gradient is not finite" for i in range(3)
    )
    assert len(index) == len(clean)
    assert index.manifest.corpus.passages == len(clean) + 3
    assert index.document("bad0").rows == ()
    assert np.isfinite(index.norms).all()

    # Nothing of them is left in the curvature: the same pairs of passages are equally close.
    def cosines(reader):
        units = np.concatenate(reader.vector_shards()).astype(np.float64)
        return units @ units.T

    np.testing.assert_allclose(cosines(index), cosines(clean), atol=0.02)


def test_a_corpus_without_any_usable_gradient_is_refused(new_llama, tokenizer, as_loaded, build):
    loaded = _spoilt(new_llama, tokenizer, as_loaded)
    with pytest.raises(NumericalError, match="None of the"):
        build([{"text": f"the {BAD_TOKEN_WORD} {w}"} for w in WORDS[:3]], loaded)


def test_a_model_without_any_gradient_is_refused(new_llama, tokenizer, as_loaded, build, tmp_path):
    """A zero normalisation in the end: the loss is constant, every gradient is zero."""
    model = new_llama(num_hidden_layers=1)
    model.model.norm.weight.data.zero_()
    with pytest.raises(NumericalError, match=r"usable gradient.*its gradient is zero"):
        build(_records(), as_loaded(model, tokenizer))
    assert not (tmp_path / "index" / "CURRENT").exists()


def test_documents_are_readable_as_plain_parquet(llama, build):
    """The index is no secret format: any reader of Parquet shows what was indexed."""
    index = build(_records(10), llama)
    tables = [pq.read_table(path) for path in sorted(index.directory.glob("documents/*"))]
    assert [d for t in tables for d in t["id"].to_pylist()] == [f"d{i}" for i in range(10)]
