"""The curves of ranks and dims on a trial of seconds."""

import numpy as np
import pytest

from evaluation.ranks import PARTS, measure, plots, weak_agreement
from indexer.progress import Silence


@pytest.fixture(scope="module")
def points(language):
    return measure(language, Silence(), parts=("all layers", "MLP only"))


def test_points_tell_what_was_stored(points):
    by_rank = {p.rank: p for p in points if p.part == "all layers"}
    assert by_rank[4].coordinates < by_rank[16].coordinates
    # Ranks end at the width of 24, so 32 and 64 are the same fit.
    assert by_rank[32].coordinates == by_rank[64].coordinates
    assert all(p.dims <= p.coordinates for p in points)
    assert all(-1 <= p.lds <= 1 and 0 <= p.recall <= 1 for p in points)
    assert all(p.logging_seconds > 0 for p in points)


def test_fewer_layers_have_fewer_coordinates(points):
    mlp = {p.rank: p.coordinates for p in points if p.part == "MLP only"}
    every = {p.rank: p.coordinates for p in points if p.part == "all layers"}
    assert set(PARTS) > {"MLP only"}
    assert all(mlp[rank] < every[rank] for rank in mlp)


def test_more_dims_agree_better_with_all_coordinates(language):
    agreement = weak_agreement(language)
    dims, weak, asked = map(np.array, zip(*agreement, strict=True))
    assert (np.diff(dims) > 0).all()
    # A sketch adds noise of 1/√D to a cosine: eight times the dims leave a third of it.
    assert weak[-1] > weak[0]
    assert asked[-1] > asked[0]


def test_plots_are_made_of_the_points(points):
    files = plots(points, [(256, 0.5, 0.6), (512, 0.7, 0.8)])
    assert set(files) == {"ranks-dims.svg", "ranks-time.svg", "ranks-weak.svg"}
    assert all(text.startswith("<svg") for text in files.values())
    assert plots(points, [(256, 0.5, 0.6), (512, 0.7, 0.8)]) == files
