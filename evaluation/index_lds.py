"""LDS of an index, where its model was trained again on subsets of its documents elsewhere.

What that gave is an ``.npz`` with two arrays: ``subsets [S, M]`` of bool, which documents each
retrained model saw, in the order of the corpus, and ``outputs [S, Q]``, the log-likelihood of each
question's answer. See `evaluation.lds`.
"""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from evaluation.index_quality import Measured
from evaluation.lds import bootstrap, lds
from evaluation.rankings import BM25, INFLUENCE, RANDOM, RELATIVE
from influence.errors import CorpusError
from influence.store import IndexReader

SUMMED = (RELATIVE, INFLUENCE, BM25, RANDOM)  # scores whose sums over documents mean something


def read_retrained(path: Path, *, documents: int, questions: int) -> tuple[np.ndarray, np.ndarray]:
    """Subsets ``[S, M]`` bool and outputs ``[S, Q]`` of a file.

    Raises:
        CorpusError: It is no such file, or belongs to another index or other questions.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            subsets, outputs = stored["subsets"], stored["outputs"].astype(np.float64)
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise CorpusError(
            f"{path} cannot be read ({error}). Give an .npz with the arrays subsets and outputs."
        ) from error
    fits = subsets.ndim == 2 and subsets.shape[1] == documents and len(subsets) >= 2
    if subsets.dtype != bool or not fits or outputs.shape != (len(subsets), questions):
        raise CorpusError(
            f"{path} has subsets {subsets.shape} of {subsets.dtype} and outputs {outputs.shape}; "
            f"for this index and these questions they are [S, {documents}] of bool and "
            f"[S, {questions}], S at least 2."
        )
    if not np.isfinite(outputs).all():
        raise CorpusError(f"{path} has outputs that are not finite. Leave out what diverged.")
    return subsets, outputs


def document_sums(reader: IndexReader, scores: np.ndarray) -> np.ndarray:
    """Scores of rows ``[Q, N]`` added up over each document: ``[Q, M]``."""
    sums = np.zeros((len(scores), len(reader.document_ids())))
    for number, name in enumerate(reader.document_ids()):
        sums[:, number] = scores[:, list(reader.rows_of(name))].sum(axis=1)
    return sums


def measure_lds(
    reader: IndexReader,
    rankings: Mapping[str, np.ndarray],
    subsets: np.ndarray,
    outputs: np.ndarray,
) -> list[Measured]:
    """LDS of every ranking whose scores add up; see `evaluation.lds.lds`."""
    return [
        Measured(name, "lds", bootstrap(lds(document_sums(reader, scores), subsets, outputs)))
        for name, scores in rankings.items()
        if name in SUMMED
    ]
