"""Indexes of SOURCE against autograd at every checkpoint, and what is refused before any work."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from indexer.add import add_corpus
from indexer.build import build_index
from indexer.checkpoints import CheckpointFolder
from indexer.crew import Crew
from indexer.progress import Silence
from indexer.redamp import redamp_index
from indexer.refit import refit_index
from indexer.training_record import RECORD, second_moments_of
from indexer.unrolling import Unrolling
from influence.basis import basis_of
from influence.documents import Document
from influence.encoder import GradientEncoder
from influence.errors import InvalidInput, ModelUnavailable, NumericalError
from influence.store import IndexReader
from influence.tokens import document_passages

KINDS = ["king", "queen", "river", "mountain", "city", "ship", "gold", "silver"]
PLACES = ["bread", "wine", "north", "south", "east", "west"]
WORDS = [*KINDS, *PLACES]
ALONE = Crew()
STAGES = [{"name": "one", "last_step": 2}, {"name": "two", "last_step": 4}]


def _records(count: int = 12) -> list[dict]:
    generator = np.random.default_rng(3)
    return [
        {"id": f"d{i}", "text": " ".join(generator.choice(WORDS, size=5 + i % 3))}
        for i in range(count)
    ]


@pytest.fixture
def source(tmp_path, write_jsonl, small_settings):
    """Build an index of SOURCE along a folder of checkpoints."""

    def run(records, checkpoints, name="index", folder=CheckpointFolder, crew=ALONE, **settings):
        corpus = str(write_jsonl(records) if crew.rank == 0 else tmp_path / "corpus.jsonl")
        opened = folder(checkpoints, device="cpu", dtype="float32")
        build_index(
            corpus,
            opened.last,
            tmp_path / name,
            small_settings(**{"method": "source", "segments": "stages", **settings}),
            reporter=Silence(),
            unrolling=Unrolling(opened, corpus),
            crew=crew,
        )
        return IndexReader.open(tmp_path / name)

    return run


def _moments(directory: Path) -> None:
    """Second moments as Adam would have them, of every checkpoint."""
    for number, folder in enumerate(sorted(directory.glob("checkpoint-*"))):
        generator = torch.Generator().manual_seed(number)
        weights = load_file(folder / "model.safetensors")
        moments = {n: torch.rand(w.shape, generator=generator) for n, w in weights.items()}
        save_file(moments, second_moments_of(folder))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_scores_are_the_sum_over_segments_of_autograd_gradients(
    optimizer, train, source, explicit_gradients, tokenizer
):
    records = _records()
    recorded = {"name": "sgd", "momentum": 0.5, "weight_decay": 0.3}
    if optimizer == "adamw":
        recorded = {"name": "adamw", "weight_decay": 0.3, "epsilon": 0.5, "preconditioned": True}
    directory = train(records, every=1, stages=STAGES)
    _moments(directory)
    values = json.loads((directory / RECORD).read_bytes())
    (directory / RECORD).write_text(json.dumps({**values, "optimizer": recorded}))
    index = source(records, directory, rank=64, dims=2**20, layers=("*.mlp.*",))
    basis = basis_of(index)
    names = [layer.name for layer in basis.layers]
    passages = [
        passage
        for record in records
        for passage in document_passages(
            Document(record["id"], plain=record["text"]), tokenizer, max_length=32
        )
    ]
    assert len(passages) == len(records)
    opened = CheckpointFolder(directory, device="cpu", dtype="float32")
    gradients, inverse = [], []
    for number in range(4):
        model = opened.load(number).model
        rows = []
        for passage in passages:
            of = explicit_gradients(model, names, passage.tokens)
            rows.append(
                torch.cat(
                    [
                        (x.p_out.double() @ of[x.name] @ x.p_in.double().T).flatten()
                        for x in basis.layers
                    ]
                )
            )
        gradients.append(torch.stack(rows))
        moments = load_file(second_moments_of(opened.folder(number)))
        whole = []
        for x in basis.layers:
            p = torch.kron(x.p_out.double(), x.p_in.double())
            diagonal = 1 / (moments[f"{x.name}.weight"].double().flatten().sqrt() + 0.5)
            whole.append(((p * diagonal) @ p.T).diagonal())
        inverse.append(torch.cat(whole))
    # Steps 1 and 2 saw the first six documents, 3 and 4 the others: three at each step.
    score = torch.zeros(12, 12, dtype=torch.float64)
    query = gradients[3]
    for segment in (0, 1):
        own = slice(6 * segment, 6 * segment + 6)

        def sigma_of(part):
            steps = [2 * part, 2 * part + 1]
            seen = slice(6 * part, 6 * part + 6)
            return sum(gradients[c][seen].square().mean(0) for c in steps) / 2

        def factors(part):
            sigma, length = sigma_of(part), 2 * 0.05
            if optimizer == "sgd":
                return sigma + 0.3, torch.full_like(sigma, length / 0.5)
            p = (inverse[2 * part] + inverse[2 * part + 1]) / 2
            return sigma + 0.3 / p, length * p

        sigma, s = factors(segment)
        weight = (1 - torch.exp(-s * sigma)) / sigma
        if segment == 0:
            sigma, s = factors(1)
            weight = weight * torch.exp(-s * sigma)
        mean = (gradients[2 * segment] + gradients[2 * segment + 1])[own] / 2
        score[:, own] = query @ (weight * 2 * mean).T  # half of the documents: twice as often
    encoder = GradientEncoder(opened.last, basis)
    asked = encoder.vectors([passage.tokens for passage in passages])
    stored = torch.from_numpy(index.vectors(range(12)) * index.norms[:, None])
    # fp16 unit vectors: 2⁻¹¹ of a norm; products of the hooks are float32.
    got = (asked @ stored.T).double()
    assert_close(got, score, rtol=5e-3, atol=2e-3 * score.abs().max().item())


def test_a_document_that_a_stage_never_saw_owes_it_nothing(train, source):
    """What was learnt in stage 1 fades in a long stage 2; what stage 2 saw does not."""
    records = _records()
    directory = train(records, every=1, stages=STAGES)
    index = source(records, directory)
    values = json.loads((directory / RECORD).read_bytes())
    values["schedule"] = [[1, 0.05], [2, 0.05], [3, 50.0], [4, 50.0]]
    (directory / RECORD).write_text(json.dumps(values))
    forgotten = source(records, directory, name="forgotten")
    faded = forgotten.norms[:6] / index.norms[:6]
    assert (faded < forgotten.norms[6:] / index.norms[6:]).all()
    assert forgotten.manifest.training.segments[0].kept < 0.9
    assert forgotten.manifest.training.segments[1].kept == 1.0


class _Counting(CheckpointFolder):
    """Counts the tokens that go through each checkpoint."""

    passed: ClassVar[Counter] = Counter()

    def load(self, number):
        loaded = super().load(number)

        def hook(module, args, kwargs):
            mask = kwargs.get("attention_mask")
            if torch.is_grad_enabled():
                self.passed[number] += int(
                    (kwargs["input_ids"] >= 0 if mask is None else mask).sum()
                )

        loaded.model.base_model.register_forward_pre_hook(hook, with_kwargs=True)
        return loaded


def test_building_costs_one_pass_over_the_corpus_for_each_checkpoint(train, source, monkeypatch):
    records = _records(24)
    directory = train(records, every=2)
    monkeypatch.setattr(_Counting, "passed", Counter())
    settings = {"segments": 2, "fit_passages": 4, "fit_tokens": 1}
    few = source(records, directory, folder=_Counting, **settings)
    once = few.manifest.corpus.tokens
    sample = {n: passed - once for n, passed in _Counting.passed.items()}
    assert set(_Counting.passed) == {0, 1, 2, 3}
    # Beside the corpus, the four sampled passages, which the last checkpoint sees a few times more.
    longest = max(few.passage(row).tokens for row in range(len(few)))
    assert all(0 < sample[n] <= 4 * longest for n in (0, 1, 2))
    assert 0 < sample[3] <= 6 * 4 * longest


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


class _Dying(CheckpointFolder):
    """Ends when a checkpoint is loaded for the so many-th time."""

    left = 0

    def load(self, number):
        type(self).left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().load(number)


@pytest.mark.parametrize("loads", [3, 7])
def test_a_build_that_was_killed_ends_with_the_same_bytes(loads, train, source, tmp_path):
    records = _records()
    directory = train(records, every=1)
    settings = {"segments": 2, "shard_passages": 4}
    source(records, directory, name="whole", **settings)
    _Dying.left = loads
    with pytest.raises(KeyboardInterrupt):
        source(records, directory, name="broken", folder=_Dying, **settings)
    source(records, directory, name="broken", **settings)
    assert _tree(tmp_path / "broken") == _tree(tmp_path / "whole")


def test_processes_that_share_the_work_end_with_the_same_bytes(
    train, source, tmp_path, start_in_child
):
    start, end = start_in_child
    records = _records(16)
    directory = train(records, every=2)
    settings = {"segments": 2, "shard_passages": 2}
    source(records, directory, name="alone", **settings)  # which writes the corpus
    workers = [Crew(rank, 3) for rank in (1, 2)]

    def work(crew):
        return lambda: source(records, directory, name="shared", crew=crew, **settings)

    for child in [start(work(crew)) for crew in workers]:
        assert end(*child) == (0, "")
    assert _tree(tmp_path / "shared") == _tree(tmp_path / "alone")


def test_the_manifest_says_what_was_followed_and_the_size_is_that_of_any_index(
    train, source, build
):
    records = _records()
    directory = train(records, every=1)
    index = source(records, directory, segments=3)
    training = index.manifest.training
    assert index.manifest.settings.method == "source"
    assert [s.first_step for s in training.segments] == [
        1,
        *[s.last_step + 1 for s in training.segments[:-1]],
    ]
    assert training.segments[-1].last_step == training.steps == 4
    assert sorted(step for s in training.segments for step in s.checkpoints) == [1, 2, 3, 4]
    assert set(training.checkpoints) == {"1", "2", "3", "4"}
    plain = build(records, CheckpointFolder(directory, device="cpu").last, name="plain")
    vectors = [name for name in plain.manifest.files if name.startswith("vectors/")]
    for name in vectors:
        assert index.manifest.files[name].size_bytes == plain.manifest.files[name].size_bytes
    with pytest.raises(InvalidInput, match="SOURCE"):
        redamp_index(index.index_dir, damping=1.0, reporter=Silence())
    with pytest.raises(InvalidInput, match="SOURCE"):
        refit_index(index.index_dir, CheckpointFolder(directory).last, reporter=Silence())


def test_documents_cannot_be_added_to_a_training_that_is_over(train, source, write_jsonl):
    directory = train(_records())
    index = source(_records(), directory, segments=1)
    more = write_jsonl([{"id": "new", "text": "king of gold"}], "more.jsonl")
    loaded = CheckpointFolder(directory, device="cpu", dtype="float32").last
    with pytest.raises(InvalidInput, match="never saw"):
        add_corpus(str(more), loaded, index.index_dir, reporter=Silence())


def _break_architecture(directory, new_llama, new_tokenizer):
    new_llama(num_hidden_layers=1, intermediate_size=48).save_pretrained(directory / "checkpoint-2")


def _break_weights(directory, new_llama, new_tokenizer):
    path = directory / "checkpoint-2" / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"][0] = math.nan
    save_file(weights, path, metadata={"format": "pt"})


def _break_tokenizer(directory, new_llama, new_tokenizer):
    new_tokenizer(["something else entirely"]).save_pretrained(directory / "checkpoint-2")


def _remove_checkpoint(directory, new_llama, new_tokenizer):
    shutil.rmtree(directory / "checkpoint-2")


def _truncate_checkpoint(directory, new_llama, new_tokenizer):
    path = directory / "checkpoint-2" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("damage", "error", "said"),
    [
        (_break_architecture, InvalidInput, "step 2 is of another architecture"),
        (_break_weights, NumericalError, r"step 2 has weights.*model\.norm\.weight"),
        (_break_tokenizer, InvalidInput, "tokenizer of the checkpoint of step 2"),
        (_remove_checkpoint, InvalidInput, "step 2 has no weights"),
        (_truncate_checkpoint, ModelUnavailable, "cannot be read"),
    ],
)
def test_a_checkpoint_that_does_not_belong_is_named(
    damage, error, said, train, source, new_llama, new_tokenizer
):
    directory = train(_records())
    damage(directory, new_llama, new_tokenizer)
    with pytest.raises(error, match=said):
        source(_records(), directory, segments=1)


def test_documents_without_a_recorded_step_are_named(train, source):
    directory = train(_records())
    with pytest.raises(InvalidInput, match=r"1 of 13 documents .* such as d12"):
        source(_records(13), directory, segments=1)


@pytest.mark.parametrize(
    ("recorded", "segments", "said"),
    [
        ({}, 3, "3 segments were asked for, and the training has 2"),
        ({}, "stages", "names no stages"),
        (
            {"stages": [{"name": "a", "last_step": 1}, {"name": "b", "last_step": 4}]},
            "stages",
            "stage a has no checkpoint",
        ),
        ({"optimizer": {"name": "adamw"}}, 1, "second moments"),
    ],
)
def test_a_training_that_cannot_be_followed_so_is_refused(recorded, segments, said, train, source):
    directory = train(_records(), **recorded)
    with pytest.raises(InvalidInput, match=said):
        source(_records(), directory, segments=segments)
