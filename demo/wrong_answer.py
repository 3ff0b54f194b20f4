"""A wrong answer of the model, explained: the best that attribution can show.

A question is asked that one record answers, and the model answers with a figure or a phrase that
stands in exactly one *other* record (the rule of `demo.facts`). What explains the error is the
first proponent; where the right record speaks against it, it shows among the opponents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from demo.facts import FactIndex, stretch
from demo.records import Record
from service.schemas import AttributeResult

HITS = 10  # of each sign that are looked at


class Attribute(Protocol):
    """The service's answer for a prompt, a response (or characters of it) and ``top_k``."""

    def __call__(
        self, prompt: str, response: str, top_k: int, span: tuple[int, int] | None = None
    ) -> AttributeResult:
        """Attribute."""
        ...


@dataclass(frozen=True)
class WrongAnswer:
    """A generated answer that carries what stands in another record, and its explanation.

    ``carried`` is the stretch of the answer with the other record's words. ``opponent_rank`` is the
    place of the record that would have been right among the opponents, None where it is not among
    the first.
    """

    question: str
    answer: str
    carried: str
    asked: str
    carries: str
    first_proponent: str
    relative_influence: float
    strongest_opponent: str
    opponent_rank: int | None


def explain_wrong_answer(
    attribute: Attribute, answers: Sequence[tuple[Record, str]], records: Sequence[Record]
) -> WrongAnswer | None:
    """The clearest answer with another record's words; None where the model made no such error.

    The clearest is one whose first proponent is the record that the words are from, of these the
    one that carries most of it, and of these the one with the right record highest among the
    opponents.
    """
    facts = FactIndex(records)
    cases = []
    for record, answer in answers:
        by_record = facts.repeated(record.question, answer)
        if len(by_record) != 1 or record.id in by_record:
            continue
        ((carries, carried),) = by_record.items()
        case = _explain(attribute, record, answer, carries, carried)
        explained = case.first_proponent == carries
        cases.append(((not explained, -len(carried), case.opponent_rank or HITS + 1), case))
    return min(cases, key=lambda entry: entry[0])[1] if cases else None


def _explain(
    attribute: Attribute, record: Record, answer: str, carries: str, carried: set[str]
) -> WrongAnswer:
    result = attribute(record.question, answer, HITS)
    first = result.proponents[0]
    opponents = [hit.document_id for hit in result.opponents]
    start, end = stretch(answer, carried)
    return WrongAnswer(
        question=record.question,
        answer=answer,
        carried=answer[start:end],
        asked=record.id,
        carries=carries,
        first_proponent=first.document_id,
        relative_influence=first.relative_influence,
        strongest_opponent=opponents[0] if opponents else "",
        opponent_rank=opponents.index(record.id) + 1 if record.id in opponents else None,
    )


def describe(case: WrongAnswer) -> list[str]:
    """The case in words, a line each."""
    place = "not among" if case.opponent_rank is None else f"number {case.opponent_rank} of"
    return [
        "A wrong answer, explained:",
        f"  asked:     {case.question}",
        f"  answered:  {case.answer}",
        f"  but {case.carried!r} stands in {case.carries}",
        f"  first proponent:    {case.first_proponent} ({case.relative_influence:+.3f})",
        f"  strongest opponent: {case.strongest_opponent}",
        f"  the right record, {case.asked}, is {place} the opponents",
    ]
