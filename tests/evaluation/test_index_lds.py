"""LDS of an index against oracles: outputs made of its own scores, turned round, and at random."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.evaluate import app
from evaluation.index_lds import document_sums, measure_lds, read_retrained
from evaluation.lds import half_subsets
from evaluation.questions import own_halves
from evaluation.rankings import RELATIVE, influence_rankings, query_vectors
from indexer.progress import Silence
from influence.errors import CorpusError
from influence.store import IndexReader

RECORDS = [{"id": f"d{i}", "text": f"king {i} of war and peace " * (1 + i % 4)} for i in range(14)]


def test_outputs_that_follow_the_scores_have_an_lds_of_1(
    build, new_llama, tokenizer, as_loaded, tmp_path, monkeypatch
):
    llama = as_loaded(new_llama(), tokenizer)
    reader = build(RECORDS, llama)
    assert len(reader) > len(RECORDS)  # some documents have several passages
    questions = own_halves(reader, tokenizer, count=5, seed=0)
    rankings = influence_rankings(reader, query_vectors(reader, llama, questions, Silence()))
    subsets = half_subsets(len(RECORDS), count=60, seed=0)
    sums = np.zeros((5, len(RECORDS)))
    for row in range(len(reader)):
        place = reader.document_ids().index(reader.passage(row).document_id)
        sums[:, place] += rankings[RELATIVE][:, row]
    np.testing.assert_allclose(document_sums(reader, rankings[RELATIVE]), sums)
    outputs = np.tanh(subsets @ sums.T)  # any rising function of the sums
    drawn = np.random.default_rng(0).normal(size=outputs.shape)
    found = [
        next(m.value for m in measure_lds(reader, rankings, subsets, made) if m.ranking == RELATIVE)
        for made in (outputs, -outputs, drawn)
    ]
    assert found[0].mean == pytest.approx(1)
    assert found[1].mean == pytest.approx(-1)
    # Of 5 queries over 60 subsets: a standard deviation of 1 / √(5 · 59) = .06.
    assert abs(found[2].mean) < 0.25

    asked = tmp_path / "questions.jsonl"
    asked.write_text(
        "\n".join(json.dumps({"prompt": "the", "response": f" king {i}"}) for i in range(5))
    )
    retrained = tmp_path / "retrained.npz"
    np.savez(retrained, subsets=subsets, outputs=outputs)
    monkeypatch.setattr("influence.model.load_model", lambda *_, **__: llama)
    options = ["--queries", str(asked), "--retrained", str(retrained), "--attach"]
    done = CliRunner().invoke(app, ["lds", str(reader.index_dir), *options])
    assert "| relative influence | " in done.output, done.exception
    (quality,) = IndexReader.open(reader.index_dir).manifest.quality
    assert quality.measure == "lds"
    assert "60 models retrained" in quality.protocol


def test_a_file_of_another_index_is_refused(tmp_path):
    path = tmp_path / "retrained.npz"
    subsets, outputs = np.ones((4, 6), dtype=bool), np.zeros((4, 3))
    np.savez(path, subsets=subsets, outputs=outputs)
    assert read_retrained(path, documents=6, questions=3)[0].shape == (4, 6)
    for wrong in ({"documents": 7, "questions": 3}, {"documents": 6, "questions": 2}):
        with pytest.raises(CorpusError, match=r"subsets \(4, 6\) of bool and outputs \(4, 3\)"):
            read_retrained(path, **wrong)
    np.savez(path, subsets=subsets, outputs=outputs * np.nan)
    with pytest.raises(CorpusError, match="not finite"):
        read_retrained(path, documents=6, questions=3)
    path.write_bytes(b"no archive")
    with pytest.raises(CorpusError, match="cannot be read"):
        read_retrained(path, documents=6, questions=3)
