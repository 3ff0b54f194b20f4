"""How good is the ranking of an index? Measured without retraining, and told in its manifest.

    retrieval    is a document that states the answer among the first? recall@k and MRR
    tail-patch   does one training step on the first passages make the answer likelier?

Both compare influence with rankings that know nothing of the model. Figures of an index that are
attached are those of its default ranking, relative influence.
"""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.lds import Interval, bootstrap
from evaluation.questions import Question, known
from evaluation.rankings import RANDOM, RELATIVE, Rankings
from evaluation.retrieval import by_document, ranks_of_any
from evaluation.tail_patch import STEP, log_likelihoods, one_step
from indexer.progress import Reporter
from influence.encoder import LanguageModelLoss
from influence.manifest import Quality
from influence.model import LoadedModel
from influence.store import IndexReader
from influence.tokens import TokenSequence

OPPONENTS = "opponents by relative influence"
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Measured:
    """One figure of one ranking: its measure, such as ``recall@1``, and its mean over questions."""

    ranking: str
    measure: str
    value: Interval


def measure_retrieval(
    reader: IndexReader, questions: Sequence[Question], rankings: Mapping[str, np.ndarray]
) -> list[Measured]:
    """Recall@k and MRR of documents that are known to state the answers.

    Args:
        reader: The index.
        questions: All with known documents.
        rankings: Scores of every row, ``[Q, N]`` each.

    Raises:
        CorpusError: No question has known documents.
    """
    known(questions)
    names = reader.document_ids()
    number = {name: i for i, name in enumerate(names)}
    places = np.array([number[reader.passage(row).document_id] for row in range(len(reader))])
    asked = [i for i, question in enumerate(questions) if question.documents]
    wanted = [[number[name] for name in questions[i].documents] for i in asked]
    measured = []
    for name, scores in rankings.items():
        ranks = ranks_of_any(by_document(scores[asked], places, len(names)), wanted)
        for k in RECALLS:
            found = (ranks <= k).astype(np.float64)
            measured.append(Measured(name, f"recall@{k}", bootstrap(found)))
        measured.append(Measured(name, "mrr", bootstrap(1 / ranks)))
    return measured


def measure_tail_patch(
    loaded: LoadedModel,
    questions: Sequence[Question],
    passages: Sequence[TokenSequence],
    rankings: Rankings,
    *,
    top_k: int,
    step: float = STEP,
    reporter: Reporter,
) -> list[Measured]:
    """Change of the answer's log-likelihood by one step on the first ``top_k`` of each ranking.

    Args:
        loaded: The model of the index, in float32; it is given back unchanged.
        questions: Q.
        passages: Tokens of the rows, N.
        rankings: ``[Q, N]`` each, `RANDOM` among them; opponents by relative influence join them.
        top_k: Passages of a step.
        step: See `evaluation.tail_patch`.
        reporter: Told how far it is.

    Returns:
        For each ranking ``tail_patch``, and ``tail_patch_over_random``, its difference to random
        passages question by question; both in nats.
    """
    task = LanguageModelLoss(loaded)
    compared = dict(rankings)
    compared[OPPONENTS] = -rankings[RELATIVE]
    changes = {name: np.empty(len(questions)) for name in compared}
    total = len(questions) * len(compared)
    with reporter.step("Training one step", total=total, unit="steps") as advance:
        for q, question in enumerate(questions):
            before = log_likelihoods(task, [question.tokens])
            for name, scores in compared.items():
                first = np.argsort(-scores[q], kind="stable")[:top_k]
                with one_step(task, [passages[row] for row in first], step=step):
                    after = log_likelihoods(task, [question.tokens])
                changes[name][q] = float(after - before)
                advance(1)
    measured = []
    for name, change in changes.items():
        measured.append(Measured(name, "tail_patch", bootstrap(change)))
        over = bootstrap(change - changes[RANDOM])
        measured.append(Measured(name, "tail_patch_over_random", over))
    return measured


def as_quality(
    measured: Sequence[Measured], *, protocol: str, date: datetime.date, prefix: str = ""
) -> list[Quality]:
    """Figures of relative influence as an index keeps them."""
    return [
        Quality(
            measure=f"{prefix}{one.measure}",
            value=one.value.mean,
            low=min(one.value.low, one.value.mean),
            high=max(one.value.high, one.value.mean),
            protocol=protocol,
            date=date,
        )
        for one in measured
        if one.ranking == RELATIVE
    ]


def table(measured: Sequence[Measured]) -> str:
    """A line of Markdown for each ranking, a column for each measure."""
    measures = list(dict.fromkeys(one.measure for one in measured))
    cells: dict[str, dict[str, str]] = {}
    for one in measured:
        value = f"{one.value.mean:.3f} [{one.value.low:.3f}, {one.value.high:.3f}]"
        cells.setdefault(one.ranking, {})[one.measure] = value
    lines = [f"| ranking | {' | '.join(measures)} |", f"| --- |{' ---: |' * len(measures)}"]
    lines += [f"| {name} | {' | '.join(row[m] for m in measures)} |" for name, row in cells.items()]
    return "\n".join(lines)
