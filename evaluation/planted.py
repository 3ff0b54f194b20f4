"""A sample of an index with questions whose documents are known, to try settings on."""

from pathlib import Path

import numpy as np

from evaluation.questions import known, own_halves, read_questions
from evaluation.rankings import passage_tokens
from evaluation.retrieval import by_document, ranks_of_any
from evaluation.subject import Subject
from evaluation.tuning import Criterion
from influence.encoder import LanguageModelLoss
from influence.model import LoadedModel
from influence.store import IndexReader


def planted(
    reader: IndexReader,
    loaded: LoadedModel,
    queries: Path | None,
    *,
    passages: int,
    count: int,
    seed: int,
) -> tuple[Subject, Criterion]:
    """The subject, and the reciprocal rank of the first document that states the answer.

    Args:
        reader: The index.
        loaded: Its model.
        queries: File of questions; None asks for second halves of passages.
        passages: At most so many are in the sample, those that state answers first.
        count: Questions, where there is no file.
        seed: Of what is drawn.

    Raises:
        CorpusError: No question has known documents.
    """
    if queries is None:
        questions = own_halves(reader, loaded.tokenizer, count=count, seed=seed)
    else:
        questions = known(read_questions(queries, loaded, reader))
    wanted = [row for q in questions for name in q.documents for row in reader.rows_of(name)]
    others = np.random.default_rng(seed).permutation(len(reader)).tolist()
    rows = list(dict.fromkeys([*wanted, *others]))
    rows = rows[: max(passages, len(set(wanted)))]
    tokens = passage_tokens(reader, loaded)
    names = list(dict.fromkeys(reader.passage(row).document_id for row in rows))
    number = {name: i for i, name in enumerate(names)}
    places = np.array([number[reader.passage(row).document_id] for row in rows])
    answers = [[number[name] for name in question.documents] for question in questions]

    def criterion(scores: np.ndarray) -> np.ndarray:
        return 1 / ranks_of_any(by_document(scores, places, len(names)), answers)

    subject = Subject(
        LanguageModelLoss(loaded), [tokens[row] for row in rows], [q.tokens for q in questions]
    )
    return subject, criterion
