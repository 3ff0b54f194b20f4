"""Near-duplicates: documents that say the same words, and documents that teach the same.

*By text*: the Jaccard index of the documents' sets of shingles, runs of three words. MinHash
(Broder 1997) with locality-sensitive hashing proposes pairs; the index itself is then taken from
the whole sets, so what is told is exact and only a miss is left to chance.

*By vector*: the cosine of the documents' summed vectors. Two documents of cosine 1 influence any
query alike, whatever their words are. Every pair is compared, in blocks.

Documents are folded in the order of the index: one is a duplicate if it is near one that was kept.
So nothing is dropped whose like is not kept, and a million copies are a million comparisons and not
their square.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from influence.documents import Document
from influence.errors import InvalidInput
from influence.store import IndexReader

SHINGLE = 3  # words
BLOCK = 1_024  # documents whose vectors are compared at once
_PERMUTATIONS = 128
_SLACK = 0.2  # below the threshold from which pairs are proposed: few that count are missed
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Duplicate:
    """A document that is near another one, which is kept.

    Attributes:
        document_id: Its id.
        duplicate_of: The nearest of those kept before it.
        similarity: Jaccard index of the shingles, or cosine of the vectors.
        by: Which of the two.
    """

    document_id: str
    duplicate_of: str
    similarity: float
    by: Literal["text", "vector"]


def find_duplicates(reader: IndexReader, *, jaccard: float, cosine: float) -> list[Duplicate]:
    """Fold by text, then what is left by vector.

    Args:
        reader: The index.
        jaccard: From this Jaccard index of shingles on, in (0, 1].
        cosine: From this cosine on, in (0, 1].

    Raises:
        InvalidInput: A threshold outside its range, or `datasketch` is not installed.
    """
    for name, threshold in (("Jaccard index", jaccard), ("cosine", cosine)):
        if not 0 < threshold <= 1:
            raise InvalidInput(
                f"The {name} of duplicates is {threshold}. Give one above 0, and 1 at most."
            )
    by_text = text_duplicates(reader.documents(), jaccard=jaccard)
    folded = {one.document_id for one in by_text}
    left = [d for d in reader.document_ids() if d not in folded and reader.rows_of(d)]
    return by_text + vector_duplicates(reader, left, cosine=cosine)


def text_duplicates(documents: Iterable[Document], *, jaccard: float) -> list[Duplicate]:
    """Documents near an earlier one by their words."""
    MinHash, MinHashLSH = _datasketch()
    near = MinHashLSH(
        threshold=max(jaccard - _SLACK, 0.05), num_perm=_PERMUTATIONS, weights=(0.1, 0.9)
    )
    kept: dict[str, np.ndarray] = {}
    found = []
    for document in documents:
        shingles = _shingles(document.text)
        if not shingles:
            continue
        hashes = np.unique(np.frombuffer(b"".join(shingles), dtype="<u8"))
        sketch = MinHash(num_perm=_PERMUTATIONS)
        sketch.update_batch(shingles)
        similar = {other: _jaccard(hashes, kept[other]) for other in near.query(sketch)}
        best = min(similar, key=lambda other: (-similar[other], other), default=None)
        if best is not None and similar[best] >= jaccard:
            found.append(Duplicate(document.id, best, similar[best], "text"))
        else:
            kept[document.id] = hashes
            near.insert(document.id, sketch)
    return found


def vector_duplicates(
    reader: IndexReader, document_ids: Sequence[str], *, cosine: float
) -> list[Duplicate]:
    """Of some documents those near an earlier one of them by what they teach."""
    blocks = [document_ids[i : i + BLOCK] for i in range(0, len(document_ids), BLOCK)]
    kept: list[list[str]] = []
    found = []
    for block in blocks:
        units = unit_document_vectors(reader, block)
        best = np.full(len(block), -np.inf)
        of = [""] * len(block)
        for earlier in kept:
            cosines = units @ unit_document_vectors(reader, earlier).T
            for place in np.flatnonzero(cosines.max(axis=1, initial=-np.inf) > best):
                nearest = int(cosines[place].argmax())
                best[place], of[place] = cosines[place, nearest], earlier[nearest]
        within = units @ units.T
        mine: list[int] = []
        for place, document_id in enumerate(block):
            if mine and within[place, mine].max() > best[place]:
                nearest = mine[int(within[place, mine].argmax())]
                best[place], of[place] = within[place, nearest], block[nearest]
            if best[place] >= cosine:
                similarity = min(float(best[place]), 1.0)
                found.append(Duplicate(document_id, of[place], similarity, "vector"))
            else:
                mine.append(place)
        kept.append([block[place] for place in mine])
    return found


def unit_document_vectors(reader: IndexReader, document_ids: Sequence[str]) -> np.ndarray:
    """Summed vectors of documents, each of length 1 (or 0, where it is), ``[n, D]`` float32."""
    out = np.empty((len(document_ids), reader.dims), dtype=np.float32)
    for place, document_id in enumerate(document_ids):
        rows = np.array(reader.rows_of(document_id))
        total = reader.norms[rows].astype(np.float64) @ reader.vectors(rows)
        out[place] = total / max(float(np.linalg.norm(total)), np.finfo(np.float64).tiny)
    return out


def _shingles(text: str) -> list[bytes]:
    """Eight bytes for each run of three words, letters' case aside; fewer words are one run."""
    words = _WORD.findall(text.lower())
    if not words:
        return []
    return [hashlib.blake2b(run.encode(), digest_size=8).digest() for run in _runs(words)]


def _runs(words: Sequence[str]) -> Iterator[str]:
    for start in range(max(len(words) - SHINGLE, 0) + 1):
        yield " ".join(words[start : start + SHINGLE])


def _jaccard(a: np.ndarray, b: np.ndarray) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _datasketch() -> tuple[Any, Any]:
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise InvalidInput(
            "Near-duplicates are found with the package datasketch, which is not installed. "
            "Install it: `pip install whence[curation]`."
        ) from error
    return MinHash, MinHashLSH
