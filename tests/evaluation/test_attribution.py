"""An answer by a reference method, against autograd and against the vectors of an index."""

import json
import math
import random

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from evaluation import attribution
from evaluation.attribution import METHODS, attribute_by
from influence.basis import load_basis
from influence.encoder import GradientEncoder
from influence.errors import IndexMismatch, InvalidInput
from influence.model import load_model
from influence.store import IndexReader
from influence.stored_tokens import StoredTokens
from influence.tokens import query_tokens

WORDS = "king queen river mountain city gold silver north south east west war peace"


@pytest.fixture(scope="module")
def saved(tmp_path_factory, new_llama, tokenizer):
    """A tiny model in a folder."""
    folder = tmp_path_factory.mktemp("reference") / "model"
    new_llama(num_hidden_layers=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(saved):
    return load_model(str(saved), device="cpu", dtype="float32")


@pytest.fixture
def index(build, loaded) -> IndexReader:
    """Nothing is projected away, sketched or whitened across layers."""
    draw = random.Random(0)
    records = [
        {"id": f"d{i}", "text": " ".join(draw.choices(WORDS.split(), k=9))} for i in range(16)
    ]
    return build(records, loaded, rank=64, dims=100_000, damping=0.1, joint_damping=math.inf)


@pytest.fixture
def query(loaded):
    return query_tokens("the king", " of the river", loaded.tokenizer, max_length=64)


def by_row(found):
    found = sorted(found)
    return np.array([hit[1] for hit in found]), np.array([hit[2] for hit in found])


def test_fullsize_ekfac_is_what_an_index_of_full_rank_stores(index, loaded, query):
    influence, relative = by_row(attribute_by("ekfac", index, loaded, query))
    manifest = index.manifest
    basis = load_basis(
        index.basis_path,
        manifest.settings.model_dump(),
        [{"name": layer.name, "leader": layer.leader} for layer in manifest.layers],
    )
    vector = GradientEncoder(loaded, basis).encode([query]).vectors[0].numpy()
    units = index.vectors(np.arange(len(index))).astype(np.float32)
    cosines = units @ vector / np.linalg.norm(vector)
    # fp16 is off by 2⁻¹¹ of a vector at most; the bases are fitted in another order of sums.
    np.testing.assert_allclose(relative, cosines, rtol=0, atol=2e-3)
    assert np.corrcoef(influence, cosines * index.norms)[0, 1] > 0.9999


def test_solves_are_those_of_explicit_gradients(index, loaded, query, explicit_gradients):
    names = [layer.name for layer in index.manifest.layers]
    tokens = StoredTokens(
        index.document, loaded.tokenizer, max_length=index.manifest.settings.max_length
    )

    def flat(sequence):
        found = explicit_gradients(loaded.model, names, sequence)
        return torch.cat([found[name].flatten() for name in names])

    train = torch.stack([flat(tokens.of(index.passage(row))) for row in range(len(index))])
    asked = flat(query)[None]
    dot, _ = by_row(attribute_by("dot", index, loaded, query))
    np.testing.assert_allclose(dot, (asked @ train.T)[0], rtol=0, atol=1e-4 * abs(dot).max())
    values = torch.linalg.eigvalsh(train @ train.T / len(train))
    damping = 0.1 * float(values.mean())
    # (RᵀR/n + λI)⁻¹ in the span of the gradients, where a 16 × 16 solve is enough.
    kernel = train @ train.T
    inner = torch.linalg.solve(kernel @ kernel / 16 + damping * kernel, (asked @ train.T).T)
    expected = (kernel @ inner)[:, 0].numpy()
    for name in ("fisher", "cg"):
        got, _ = by_row(attribute_by(name, index, loaded, query))
        # Float32 gradients, and a solve whose condition is the spread of 16 eigenvalues.
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-3 * abs(expected).max())


def test_what_cannot_be_done_is_told(index, loaded, query, new_llama, as_loaded, monkeypatch):
    with pytest.raises(InvalidInput, match="one of dot, gauss-newton"):
        attribute_by("magic", index, loaded, query)
    other = as_loaded(new_llama(num_hidden_layers=1, seed=1), loaded.tokenizer)
    with pytest.raises(IndexMismatch):
        attribute_by("dot", index, other, query)
    monkeypatch.setattr(attribution, "MOST_BYTES", 10_000)
    with pytest.raises(InvalidInput, match="16 passages in 4,608 weights"):
        attribute_by("dot", index, loaded, query)


@pytest.mark.parametrize("method", METHODS)
def test_the_command_ranks_both_sides(index, saved, method):
    arguments = ["attribute", index.index_dir, "--model", saved, "--prompt", "the king"]
    arguments += ["--response", " of the river", "--method", method, "-k", "3"]
    told = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert told.exit_code == 0, told.output
    assert "Proponents" in told.stdout
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    answer = json.loads(done.stdout)
    relative = [hit["relative_influence"] for hit in answer["proponents"]]
    assert len(relative) == 3
    assert relative == sorted(relative, reverse=True)
    assert all(hit["influence"] < 0 for hit in answer["opponents"])


def test_the_command_refuses_what_only_stored_vectors_give(index, saved):
    arguments = ["attribute", index.index_dir, "--model", saved, "--prompt", "a"]
    arguments += ["--response", "b", "--method", "dot", "--explain"]
    told = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert isinstance(told.exception, InvalidInput)
    assert "--explain" in str(told.exception)
