"""Folding of near-duplicates against all pairs, one after the other."""

import random
import sys

import numpy as np
import pytest

from influence.documents import Document
from influence.errors import InvalidInput
from service.valuation import duplicates
from service.valuation.duplicates import find_duplicates, text_duplicates, vector_duplicates

WORDS = [f"w{i}" for i in range(200)]


def _varied(count: int) -> list[Document]:
    """Random texts, and copies of earlier ones with none to many of their words replaced."""
    draw = random.Random(0)
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and draw.random() < 0.5:
            words = list(draw.choice(texts))
            for _ in range(draw.choice([0, 0, 1, 2, 4, 8])):
                words[draw.randrange(len(words))] = draw.choice(WORDS)
        else:
            words = draw.choices(WORDS, k=60)
        texts.append(words)
    return [Document(id=f"d{n:03}", plain=" ".join(words)) for n, words in enumerate(texts)]


def _runs_of_three(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def _fold(similarity: np.ndarray, threshold: float) -> dict[int, float]:
    """Which of ``n`` are near one that was kept, and how near: every pair is looked at."""
    kept: list[int] = []
    folded = {}
    for n in range(len(similarity)):
        nearest = max((similarity[n, k] for k in kept), default=-1.0)
        if nearest >= threshold:
            folded[n] = nearest
        else:
            kept.append(n)
    return folded


def test_by_text_it_is_what_the_jaccard_index_of_all_pairs_says():
    documents = _varied(300)
    runs = [_runs_of_three(d.text) for d in documents]
    jaccard = np.array([[len(a & b) / len(a | b) for b in runs] for a in runs])
    expected = _fold(jaccard, 0.7)
    assert 50 < len(expected) < 150
    found = {int(one.document_id[1:]): one for one in text_duplicates(documents, jaccard=0.7)}
    assert {n: one.similarity for n, one in found.items()} == expected
    for n, one in found.items():
        assert jaccard[n, int(one.duplicate_of[1:])] == one.similarity


def test_by_vector_it_is_what_the_cosine_of_all_pairs_says(tiny, engine, monkeypatch):
    reader = engine.reader
    ids = reader.document_ids()
    monkeypatch.setattr(duplicates, "BLOCK", 7)  # several blocks, the last not full
    sums = []
    for document_id in ids:
        rows = list(reader.rows_of(document_id))
        sums.append((reader.vectors(rows).astype(float) * reader.norms[rows][:, None]).sum(axis=0))
    units = np.array([v / np.linalg.norm(v) for v in sums])
    cosines = units @ units.T
    # A threshold in the middle of a wide gap: float32 sums of D = 256 products are good to 1e-5.
    values = np.sort(cosines[np.triu_indices(len(ids), 1)])
    upper = values[len(values) * 9 // 10 :]
    widest = int(np.diff(upper).argmax())
    threshold = float(upper[widest : widest + 2].mean())
    expected = {ids[n]: near for n, near in _fold(cosines, threshold).items()}
    assert expected
    found = vector_duplicates(reader, ids, cosine=threshold)
    assert {one.document_id: one.similarity for one in found} == pytest.approx(expected, abs=1e-5)


def test_what_differs_in_case_and_commas_is_a_copy_and_the_first_stays():
    documents = [
        Document(id="b", plain="The king, of the NORTH!"),
        Document(id="a", plain="the king of the north"),
        Document(id="short", plain="King"),
        Document(id="none", plain="?!"),
        Document(id="none either", plain="..."),
    ]
    (found,) = text_duplicates(documents, jaccard=1.0)
    assert (found.document_id, found.duplicate_of, found.similarity) == ("a", "b", 1.0)


@pytest.mark.parametrize(("jaccard", "cosine"), [(0, 0.9), (1.1, 0.9), (0.9, float("nan"))])
def test_a_threshold_that_is_none_is_refused(engine, jaccard, cosine):
    with pytest.raises(InvalidInput, match="above 0, and 1 at most"):
        find_duplicates(engine.reader, jaccard=jaccard, cosine=cosine)


def test_a_missing_package_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(InvalidInput, match=r"whence\[curation\]"):
        text_duplicates([Document(id="a", plain="b")], jaccard=0.5)
