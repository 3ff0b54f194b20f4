"""A sample of an index with questions, to try settings on; and what a good ranking of it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evaluation.questions import Question, known, own_halves, read_questions
from evaluation.rankings import passage_tokens
from evaluation.retrieval import by_document, ranks_of_any
from evaluation.subject import Subject
from evaluation.tail_patch import log_likelihoods, one_step
from evaluation.tuning import Criterion
from influence.encoder import LanguageModelLoss
from influence.errors import CorpusError
from influence.model import LoadedModel
from influence.store import IndexReader


@dataclass(frozen=True)
class IndexSample:
    """See the module.

    Attributes:
        subject: The model, the tokens of the sampled passages, and those of the questions.
        questions: Q of them.
        document_ids: Of each sampled passage.
    """

    subject: Subject
    questions: Sequence[Question]
    document_ids: Sequence[str]


def sample_index(
    reader: IndexReader,
    loaded: LoadedModel,
    queries: Path | None,
    *,
    passages: int,
    count: int,
    seed: int,
) -> IndexSample:
    """Draw passages, those of documents that state answers first.

    Args:
        reader: The index.
        loaded: Its model, in float32.
        queries: File of questions; None asks for second halves of passages.
        passages: At most so many, but all that state answers.
        count: Questions, where there is no file.
        seed: Of what is drawn.

    Raises:
        CorpusError: The file has no question.
    """
    if queries is None:
        questions = own_halves(reader, loaded.tokenizer, count=count, seed=seed)
    else:
        questions = read_questions(queries, loaded, reader)
    wanted = [row for q in questions for name in q.documents for row in reader.rows_of(name)]
    others = np.random.default_rng(seed).permutation(len(reader)).tolist()
    rows = list(dict.fromkeys([*wanted, *others]))
    rows = rows[: max(passages, len(set(wanted)))]
    tokens = passage_tokens(reader, loaded)
    subject = Subject(
        LanguageModelLoss(loaded), [tokens[row] for row in rows], [q.tokens for q in questions]
    )
    return IndexSample(subject, questions, [reader.passage(row).document_id for row in rows])


def by_recall(sample: IndexSample) -> Criterion:
    """Reciprocal rank of the first document that states the answer; its mean is the MRR.

    Raises:
        CorpusError: A question has no known documents.
    """
    if len(known(sample.questions)) < len(sample.questions):
        raise CorpusError(
            f"{len(sample.questions) - len(known(sample.questions))} of {len(sample.questions)} "
            "questions name no document that states the answer. Add documents to each line, or "
            "choose by --measure tail-patch, which needs none."
        )
    names = list(dict.fromkeys(sample.document_ids))
    number = {name: i for i, name in enumerate(names)}
    places = np.array([number[name] for name in sample.document_ids])
    answers = [[number[name] for name in question.documents] for question in sample.questions]

    def criterion(scores: np.ndarray) -> np.ndarray:
        return 1 / ranks_of_any(by_document(scores, places, len(names)), answers)

    return criterion


def by_tail_patch(sample: IndexSample, *, top_k: int) -> Criterion:
    """Change of the answer's log-likelihood, in nats, by one step on the first ``top_k`` passages.

    A step that an earlier choice of settings asked for is not made again: most of them agree on
    what comes first.
    """
    task = sample.subject.task
    assert isinstance(task, LanguageModelLoss)
    before = [float(log_likelihoods(task, [question.tokens])) for question in sample.questions]
    changes: dict[tuple[int, tuple[int, ...]], float] = {}

    def change(q: int, rows: tuple[int, ...]) -> float:
        with one_step(task, [sample.subject.examples[row] for row in rows]):
            return float(log_likelihoods(task, [sample.questions[q].tokens])) - before[q]

    def criterion(scores: np.ndarray) -> np.ndarray:
        first = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :top_k], axis=1)
        asked = [(q, tuple(rows)) for q, rows in enumerate(first.tolist())]
        for key in asked:
            if key not in changes:
                changes[key] = change(*key)
        return np.array([changes[key] for key in asked])

    return criterion
