"""Token overlap weighted by rarity (BM25): the baseline that knows nothing of the model.

Where a document and a question share rare words this is hard to beat at *finding* the document; it
says nothing of what the model learnt from it, and it cannot tell a proponent from an opponent.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def bm25_scores(
    queries: Sequence[Sequence[int]],
    documents: Sequence[Sequence[int]],
    *,
    k1: float = 1.2,
    b: float = 0.75,
) -> np.ndarray:
    """Okapi BM25 of every document for every query.

    Args:
        queries: Token ids of each query, prompt and response.
        documents: Token ids of each document.
        k1: How soon repeated tokens stop counting.
        b: How much long documents are held back.

    Returns:
        ``[Q, N]``, not negative.
    """
    counts = [Counter(document) for document in documents]
    containing = Counter(token for count in counts for token in count)
    lengths = np.array([len(document) for document in documents], dtype=np.float64)
    saturation = k1 * (1 - b + b * lengths / max(lengths.mean(), 1e-9))  # [N]
    scores = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(queries):
        for token in sorted(set(query)):
            n = containing[token]
            rarity = np.log1p((len(documents) - n + 0.5) / (n + 0.5))
            tf = np.array([count[token] for count in counts], dtype=np.float64)
            scores[row] += rarity * tf * (k1 + 1) / (tf + saturation)
    return scores
