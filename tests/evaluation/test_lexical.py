"""BM25 against its formula written out, and against what it is for."""

import math

import numpy as np
import pytest

from evaluation.lexical import bm25_scores

DOCUMENTS = [[1, 2, 3], [1, 1, 4, 5, 6], [7], [1, 8]]


def test_it_is_the_formula():
    scores = bm25_scores([[1, 3, 3, 9]], DOCUMENTS, k1=1.5, b=0.6)
    mean = (3 + 5 + 1 + 2) / 4

    def term(frequency: int, containing: int, length: int) -> float:
        rarity = math.log(1 + (4 - containing + 0.5) / (containing + 0.5))
        return rarity * frequency * 2.5 / (frequency + 1.5 * (0.4 + 0.6 * length / mean))

    expected = [term(1, 3, 3) + term(1, 1, 3), term(2, 3, 5), 0, term(1, 3, 2)]
    np.testing.assert_allclose(scores[0], expected)


def test_a_rare_word_weighs_more_than_a_common_one():
    scores = bm25_scores([[1, 8]], DOCUMENTS)[0]
    assert scores.argmax() == 3
    assert scores.min() >= 0


@pytest.mark.parametrize("queries", [[], [[]]])
def test_no_words_no_scores(queries):
    assert (bm25_scores(queries, DOCUMENTS) == 0).all()
