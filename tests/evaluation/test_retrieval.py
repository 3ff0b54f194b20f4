import numpy as np
from numpy.testing import assert_allclose

from evaluation.retrieval import ranks_of, recall_at, reciprocal_ranks

SCORES = np.array([[0.3, 0.9, 0.1], [0.3, 0.9, 0.1], [0.5, 0.5, 0.1], [0.0, 0.0, 0.0]])
WANTED = np.array([1, 2, 0, 1])


def test_ranks_count_from_1_and_ties_count_against():
    assert ranks_of(SCORES, WANTED).tolist() == [1, 3, 2, 3]


def test_recall_and_reciprocal_rank():
    assert recall_at(SCORES, WANTED).tolist() == [1, 0, 0, 0]
    assert recall_at(SCORES, WANTED, k=2).tolist() == [1, 0, 1, 0]
    assert_allclose(reciprocal_ranks(SCORES, WANTED), [1, 1 / 3, 1 / 2, 1 / 3])


def test_random_scores_find_a_document_once_in_n():
    draw = np.random.default_rng(0)
    scores, wanted = draw.random((20_000, 10)), draw.integers(10, size=20_000)
    # Standard deviation √(.1 · .9 / 20000) = .002.
    assert abs(recall_at(scores, wanted).mean() - 0.1) < 0.01
