"""Does the attribution of the demo hold? Three checks, each with a bar, and one case to look at.

a. **Own text**: a record's question with the record's text as the answer names that record first,
   in at least 9 of 10.
b. **Repeated facts**: where an answer that the model gives by itself repeats figures or phrases of
   exactly one record (the rule is in `demo.facts`), the answer has that record among the first
   five, in at least 8 of 10. Where it has not, the answer mostly goes on with invented words or
   runs into a loop, which the record has not taught it; so whether the repeating stretch alone
   names the record is said beside it.
c. **Outside**: for questions that no record has to do with, nothing stands out.

The case: an answer that carries what stands in another record alone (`demo.wrong_answer`).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from demo.facts import FactIndex, stretch
from demo.records import Record
from demo.wrong_answer import Attribute, WrongAnswer, describe, explain_wrong_answer
from indexer.progress import Reporter
from influence.errors import AttributionError
from service.schemas import AttributeResult

Generate = Callable[[Sequence[str]], list[str]]  # greedy answers, one for each question

OWN_TEXTS = 10
OWN_TEXTS_FIRST = 9
REPEATS = 10
REPEATS_IN_TOP = 8
TOP = 5
ROUND = 16  # questions whose answers are generated together
MOST_QUESTIONS = 160  # until enough answers repeat a record
WRONG_ANSWER_QUESTIONS = 48  # further ones, where no wrong answer was among those

OUTSIDE = (
    "How do I bake sourdough bread at home?",
    "How do I reverse a linked list in Python?",
    "What are the rules of offside in football?",
    "How do I remove a red wine stain from a shirt?",
    "Can you write a short poem about my cat?",
    "How should I train for my first marathon?",
)
OUTSIDE_SILENT = 5


@dataclass(frozen=True)
class CheckResult:
    """One check: how many cases held, how many had to."""

    name: str
    held: int
    of: int
    needed: int
    failures: tuple[str, ...]  # a line for each case that did not hold

    @property
    def passed(self) -> bool:
        """Whether the bar is reached."""
        return self.held >= self.needed

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        return f"{verdict}: {self.name}: {self.held} of {self.of} (needed: {self.needed})"


@dataclass(frozen=True)
class SelfCheck:
    """All that the self-check found."""

    checks: tuple[CheckResult, ...]
    wrong_answer: WrongAnswer | None

    def as_json(self) -> dict[str, Any]:
        """For the cache and for people."""
        return asdict(self)


class SelfCheckFailed(AttributionError):
    """The demo's attribution misses its bar."""


def self_check(
    attribute: Attribute,
    generate: Generate,
    records: Sequence[Record],
    *,
    seed: int = 0,
    reporter: Reporter,
) -> SelfCheck:
    """Run the three checks and look for a wrong answer to explain.

    Args:
        attribute: The service's answer for a prompt, a response and ``top_k``.
        generate: The model's own answers.
        records: The indexed records.
        seed: Which of them are asked about.
        reporter: Told how far it is and what was found.

    Raises:
        SelfCheckFailed: A check misses its bar; the message names each and its failures.
    """
    rng = random.Random(seed)
    own = check_own_texts(attribute, rng.sample(records, min(OWN_TEXTS, len(records))), reporter)
    order = rng.sample(records, len(records))
    repeats, answers = check_repeats(attribute, generate, order, records, reporter)
    outside = check_outside(attribute, generate, reporter)
    case = find_wrong_answer(attribute, generate, answers, order, records)
    found = SelfCheck((own, repeats, outside), case)
    for check in found.checks:
        reporter.note(f"  {check}")
    if found.wrong_answer is not None:
        for line in describe(found.wrong_answer):
            reporter.note(f"  {line}")
    else:
        reporter.note("  No answer carried what stands in another record, so none is explained.")
    missed = [check for check in found.checks if not check.passed]
    if missed:
        raise SelfCheckFailed(
            "The demo's self-check failed: "
            + "; ".join(f"{check} [{' | '.join(check.failures)}]" for check in missed)
            + ". The index does not explain this model; report it with this message."
        )
    return found


def check_own_texts(
    attribute: Attribute, records: Sequence[Record], reporter: Reporter
) -> CheckResult:
    """Check (a): the record whose text is the answer must be first."""
    failures = []
    with reporter.step("Self-check: own texts", total=len(records), unit="answers") as advance:
        for record in records:
            first = attribute(record.question, record.answer, TOP).proponents[0].document_id
            if first != record.id:
                failures.append(f"the text of {record.id} names {first} first")
            advance(1)
    held = len(records) - len(failures)
    return CheckResult(
        "a record's own text names it first", held, len(records), OWN_TEXTS_FIRST, tuple(failures)
    )


def check_repeats(
    attribute: Attribute,
    generate: Generate,
    order: Sequence[Record],
    records: Sequence[Record],
    reporter: Reporter,
) -> tuple[CheckResult, list[tuple[Record, str]]]:
    """Check (b): generated answers that repeat exactly one record must have it in the top five.

    Returns:
        The check, and every answer that was generated with the record it was asked for.
    """
    facts = FactIndex(records)
    answers: list[tuple[Record, str]] = []
    failures: list[str] = []
    tried = by_stretch = 0
    with reporter.step("Self-check: repeated facts", total=REPEATS, unit="answers") as advance:
        for start in range(0, min(len(order), MOST_QUESTIONS), ROUND):
            asked = order[start : start + ROUND]
            given = generate([record.question for record in asked])
            answers += zip(asked, given, strict=True)
            for record, answer in zip(asked, given, strict=True):
                repeated = facts.repeated(record.question, answer)
                if len(repeated) != 1 or tried == REPEATS:
                    continue
                ((expected, by),) = repeated.items()
                result = attribute(record.question, answer, TOP)
                if not _names(result, expected):
                    part = attribute(record.question, answer, TOP, stretch(answer, by))
                    by_stretch += _names(part, expected)
                    named = ", ".join(hit.document_id for hit in result.proponents)
                    failures.append(
                        f"{record.question!r} -> {answer!r} repeats {sorted(by)[0]!r} of {expected}"
                        f", but {named} were named"
                    )
                tried += 1
                advance(1)
            if tried == REPEATS:
                break
    held = tried - len(failures)
    if tried < REPEATS:
        failures.append(f"only {tried} of {len(answers)} generated answers repeat one record")
    name = (
        f"the record that an answer repeats is in the top {TOP} "
        f"(of the others, {by_stretch} by the repeating stretch alone)"
    )
    return CheckResult(name, held, REPEATS, REPEATS_IN_TOP, tuple(failures)), answers


def _names(result: AttributeResult, document_id: str) -> bool:
    return any(hit.document_id == document_id for hit in result.proponents)


def check_outside(attribute: Attribute, generate: Generate, reporter: Reporter) -> CheckResult:
    """Check (c): for questions from outside the corpus nothing may stand out."""
    failures = []
    with reporter.step("Self-check: outside", total=len(OUTSIDE), unit="answers") as advance:
        for question, answer in zip(OUTSIDE, generate(OUTSIDE), strict=True):
            result = attribute(question, answer, TOP)
            if result.query.stands_out:
                best = result.proponents[0]
                failures.append(
                    f"{question!r} -> {answer[:80]!r}... stands out with {best.document_id} "
                    f"(confidence {best.confidence:.3f})"
                )
            advance(1)
    held = len(OUTSIDE) - len(failures)
    return CheckResult(
        "nothing stands out for questions from outside",
        held,
        len(OUTSIDE),
        OUTSIDE_SILENT,
        tuple(failures),
    )


def find_wrong_answer(
    attribute: Attribute,
    generate: Generate,
    answers: list[tuple[Record, str]],
    order: Sequence[Record],
    records: Sequence[Record],
) -> WrongAnswer | None:
    """One among the answers so far, else among those to some more of the questions in order."""
    case = explain_wrong_answer(attribute, answers, records)
    last = len(answers) + WRONG_ANSWER_QUESTIONS
    for start in range(len(answers), min(last, len(order)), ROUND):
        if case is not None:
            break
        asked = order[start : start + ROUND]
        given = generate([record.question for record in asked])
        case = explain_wrong_answer(attribute, list(zip(asked, given, strict=True)), records)
    return case
