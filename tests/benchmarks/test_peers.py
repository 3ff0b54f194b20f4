"""The benchmark beside peers: what no peer's own environment is needed for."""

import numpy as np
import pytest

from benchmarks.peers.rounds import Failed, Rounds
from benchmarks.peers.workload import by_length, load_documents, make_workload, padded

SETTINGS = {"documents": 6, "tokens": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workload")
    make_workload(folder, documents=6, tokens=8, layers=1)
    return folder


def test_batches_hold_every_document_once_and_no_more_tokens_than_they_may(folder):
    documents, budget = load_documents(folder, "varying")
    groups = by_length(documents, budget)
    assert sorted(i for group in groups for i in group) == list(range(6))
    assert len({len(document) for document in documents}) > 1
    assert len(groups) > 1
    for group in groups:
        ids, labels, mask = padded([documents[i] for i in group])
        assert ids.numel() <= budget
        lengths = np.array([len(documents[i]) for i in group])
        assert (mask.sum(1).numpy() == lengths).all()
        assert ((labels == -100) == (mask == 0)).all()


@pytest.mark.slow
def test_a_run_that_was_cut_off_goes_on_and_one_that_ended_measures_anew(folder, tmp_path):
    rounds = Rounds(folder, tmp_path, threads=1, rounds=1, settings=SETTINGS)
    found = rounds.interleaved(("step",), "logging:varying")
    assert found["step"][0]["tokens_per_s"] > 0
    nowhere = tmp_path / "nowhere"  # nothing can be measured there
    again = Rounds(nowhere, tmp_path, threads=1, rounds=1, settings=SETTINGS)
    assert again.interleaved(("step",), "logging:varying") == found
    again.finish()
    anew = Rounds(nowhere, tmp_path, threads=1, rounds=1, settings=SETTINGS)
    assert anew.interleaved(("step",), "logging:varying") == {}
    assert list(anew.failed) == ["logging:varying/step"]
    with pytest.raises(Failed):
        anew.run("step", "logging:varying")
