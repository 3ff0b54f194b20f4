"""Logging: every passage under its own row, whatever batch and shard it travelled in."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.corpus import Located
from indexer.shards import log_shards
from indexer.units import Units
from influence.basis import Basis, LayerBasis
from influence.curvature import random_orthonormal
from influence.documents import Document
from influence.encoder import GradientEncoder, input_leaders
from influence.layers import select_layers
from influence.manifest import IndexSettings
from influence.staging import Staging
from influence.tokens import Passage

BAD_TOKEN, DEAD_TOKEN = 399, 398
SETTINGS = IndexSettings(rank=4, dims=64, batch_tokens=64, shard_passages=8)


def _encoder(loaded) -> GradientEncoder:
    layers = select_layers(loaded.model)
    leaders = input_leaders(loaded, layers)
    bases = tuple(
        LayerBasis(
            layer.name,
            leaders[layer.name],
            random_orthonormal(4, layer.d_in, seed=len(leaders[layer.name])).float(),
            random_orthonormal(4, layer.d_out, seed=i).float(),
            torch.ones(4, 4, dtype=torch.float64),
        )
        for i, layer in enumerate(layers)
    )
    return GradientEncoder(loaded, Basis(bases, 0.1, 64, 0))


@pytest.fixture
def corpus(token_sequence) -> list[tuple[Located, list[Passage]]]:
    """Documents of one to three passages of mixed lengths, and one without any."""
    found, seed = [], 0
    for i in range(14):
        document = Document(f"d{i}", plain=f"text {i}")
        passages = []
        for number in range((1, 3, 2, 0)[i % 4] if i else 1):
            seed += 1
            tokens = token_sequence(3 + (7 * seed) % 29, seed=seed, vocabulary=398)
            passages.append(Passage(f"d{i}#{number}", f"d{i}", number, number, 9, tokens))
        found.append((Located(document, f"line {i}"), passages))
    return found


def _units(corpus, read=None) -> Units:
    cuts = {located.document.id: passages for located, passages in corpus}
    places = [(i, n) for i, (_, passages) in enumerate(corpus) for n in range(len(passages))]
    return Units(
        read or (lambda: [located for located, _ in corpus]),
        lambda located: cuts[located.document.id],
        places[:: SETTINGS.shard_passages],
        size=SETTINGS.shard_passages,
        passages=len(places),
    )


def _passages(corpus) -> list[Passage]:
    return [passage for _, passages in corpus for passage in passages]


def _stored(staging: Staging, shards):
    import pyarrow.parquet as pq

    folder = staging.directory
    units = [np.load(folder / f"vectors/{s.name}.npy", allow_pickle=False) for s in shards]
    norms = [np.load(folder / f"vectors/{s.name}.norms.npy", allow_pickle=False) for s in shards]
    tables = [pq.read_table(folder / f"passages/{s.name}.parquet").to_pylist() for s in shards]
    documents = [pq.read_table(folder / f"documents/{s.name}.parquet").to_pylist() for s in shards]
    return (
        np.concatenate(units).astype(np.float64) * np.concatenate(norms)[:, None],
        [row for table in tables for row in table],
        [[d["id"] for d in table] for table in documents],
    )


def test_every_row_holds_the_vector_of_its_own_passage(loaded, corpus, tmp_path):
    encoder = _encoder(loaded)
    staging = Staging.open(tmp_path, {})
    done = []
    logged = log_shards(staging, encoder, _units(corpus), SETTINGS, done.append)
    vectors, rows, documents = _stored(staging, logged.shards)
    passages = _passages(corpus)
    assert [s.rows for s in logged.shards] == [8] * (len(passages) // 8) + [len(passages) % 8]
    assert [f"{r['document_id']}#{r['number']}" for r in rows] == [p.id for p in passages]
    for vector, row, passage in zip(vectors, rows, passages, strict=True):
        alone = encoder.encode([passage.tokens])
        want = alone.vectors[0].double().numpy()
        assert np.linalg.norm(vector - want) < 2**-11 * np.linalg.norm(want)  # fp16
        assert row["loss_nats"] == pytest.approx(alone.losses.item(), rel=1e-5)
        assert row["target_tokens"] == sum(passage.tokens.targets)
        assert (row["start"], row["end"]) == (passage.start, passage.end)
    assert sum(done) == sum(len(p.tokens) for p in passages)
    # A document lies in the shard of its first passage, and one without passages in none.
    first = {p.document_id: i // 8 for i, p in reversed(list(enumerate(passages)))}
    assert documents == [
        [d for d in dict.fromkeys(p.document_id for p in passages) if first[d] == number]
        for number in range(len(logged.shards))
    ]
    assert logged.left_out == ()


def test_padding_is_measured(loaded, corpus, tmp_path):
    logged = log_shards(
        Staging.open(tmp_path, {}), _encoder(loaded), _units(corpus), SETTINGS, lambda _: None
    )
    assert 0 <= logged.padding_share < 0.05


def test_finished_shards_are_not_computed_again(loaded, corpus, tmp_path):
    encoder = _encoder(loaded)
    staging = Staging.open(tmp_path, {})
    first = log_shards(staging, encoder, _units(corpus), SETTINGS, lambda _: None)
    before = {p: p.stat().st_mtime_ns for p in staging.directory.rglob("*") if p.is_file()}
    (staging.directory / "shards/00001.json").unlink()
    calls = []
    hook = loaded.model.base_model.register_forward_hook(lambda *_: calls.append(1))
    done = []
    again = log_shards(staging, encoder, _units(corpus), SETTINGS, done.append)
    hook.remove()
    assert again == first
    assert 1 <= len(calls) <= 8  # the batches of one shard
    assert sum(done) == sum(len(p.tokens) for p in _passages(corpus))
    written = {p for p, mtime in before.items() if p.stat().st_mtime_ns != mtime}
    assert {p.name.split(".")[0] for p in written} == {"00001"}


def _spoilt(new_llama, as_loaded, tokenizer):
    """One token makes the gradient NaN, another leaves the model without any gradient."""
    model = new_llama(tie_word_embeddings=False)
    model.model.embed_tokens.weight.data[BAD_TOKEN, 5] = float("nan")
    return as_loaded(model, tokenizer)


def _replace(passage: Passage, token: int) -> Passage:
    ids = list(passage.tokens.input_ids)
    ids[1] = token
    tokens = type(passage.tokens)(ids, passage.tokens.targets, passage.tokens.offsets)
    return Passage(passage.id, passage.document_id, passage.number, 0, 9, tokens)


def test_a_passage_without_a_usable_gradient_is_left_out_and_named(
    new_llama, as_loaded, tokenizer, corpus, tmp_path, caplog
):
    encoder = _encoder(_spoilt(new_llama, as_loaded, tokenizer))
    clean = log_shards(
        Staging.open(tmp_path / "clean", {}), encoder, _units(corpus), SETTINGS, lambda _: None
    )
    spoilt = []
    bad = {"d1#1", "d5#0", "d9#2"}
    zero = "d2#0"
    for located, passages in corpus:
        changed = [_replace(p, BAD_TOKEN) if p.id in bad else p for p in passages]
        for i, p in enumerate(changed):
            if p.id == zero:  # no target, no loss, no gradient
                tokens = type(p.tokens)(
                    p.tokens.input_ids, [False] * len(p.tokens), p.tokens.offsets
                )
                changed[i] = Passage(p.id, p.document_id, p.number, 0, 9, tokens)
        spoilt.append((located, changed))
    staging = Staging.open(tmp_path / "spoilt", {})
    with caplog.at_level(logging.WARNING):
        logged = log_shards(staging, encoder, _units(spoilt), SETTINGS, lambda _: None)
    assert sorted(logged.left_out) == [
        "d1#1: its gradient is not finite",
        "d2#0: its gradient is zero",
        "d5#0: its gradient is not finite",
        "d9#2: its gradient is not finite",
    ]
    assert all(line in caplog.text for line in logged.left_out)
    vectors, rows, documents = _stored(staging, logged.shards)
    want, want_rows, want_documents = _stored(Staging.open(tmp_path / "clean", {}), clean.shards)
    kept = [i for i, r in enumerate(want_rows) if f"{r['document_id']}#{r['number']}" not in bad]
    kept = [i for i in kept if (want_rows[i]["document_id"], want_rows[i]["number"]) != ("d2", 0)]
    assert [r["document_id"] for r in rows] == [want_rows[i]["document_id"] for i in kept]
    # Those that shared a batch with a bad passage are as they would have been without it.
    np.testing.assert_allclose(vectors, want[kept], rtol=5e-3, atol=2e-3 * np.abs(want).max())
    assert documents == want_documents  # the documents are kept, also those with fewer passages


def test_a_shard_in_which_nothing_is_usable_is_empty_and_readable(
    new_llama, as_loaded, tokenizer, corpus, tmp_path
):
    encoder = _encoder(_spoilt(new_llama, as_loaded, tokenizer))
    passages = [p.id for p in _passages(corpus)]
    bad = set(passages[8:16])
    spoilt = [
        (located, [_replace(p, BAD_TOKEN) if p.id in bad else p for p in found])
        for located, found in corpus
    ]
    staging = Staging.open(tmp_path, {})
    logged = log_shards(staging, encoder, _units(spoilt), SETTINGS, lambda _: None)
    assert [s.rows for s in logged.shards][1] == 0
    assert _stored(staging, logged.shards)[0].shape == (len(passages) - 8, 64)


def test_a_batch_that_does_not_fit_gives_the_same_vectors(loaded, corpus, tmp_path):
    encoder = _encoder(loaded)
    whole = Staging.open(tmp_path / "whole", {})
    want = _stored(
        whole, log_shards(whole, encoder, _units(corpus), SETTINGS, lambda _: None).shards
    )
    refused = []

    class Small(GradientEncoder):
        """Memory for 40 tokens."""

        def encode(self, sequences):
            if len(sequences) * max(map(len, sequences)) > 40:
                refused.append(len(sequences))
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().encode(sequences)

    halved = Staging.open(tmp_path / "halved", {})
    small = Small(loaded, encoder.basis)
    got = _stored(
        halved, log_shards(halved, small, _units(corpus), SETTINGS, lambda _: None).shards
    )
    assert refused
    scale = np.abs(want[0]).max(axis=1, keepdims=True)
    assert (np.abs(got[0] - want[0]) < 2**-10 * scale).all()
    assert got[1:] == want[1:] or [r["number"] for r in got[1]] == [r["number"] for r in want[1]]


def test_an_error_while_logging_leaves_only_whole_shards(loaded, corpus, tmp_path):
    encoder = _encoder(loaded)
    staging = Staging.open(tmp_path, {})

    def breaking():
        for i, (item, _) in enumerate(corpus):
            if i == 11:
                raise KeyError("the corpus breaks off")
            yield item

    with pytest.raises(KeyError):
        log_shards(staging, encoder, _units(corpus, breaking), SETTINGS, lambda _: None)
    assert staging.shard_rows(0) == 8
    assert not any(name.endswith(".tmp") for name in map(str, Path(tmp_path).rglob("*")))
