"""Which record an answer repeats, by figures and phrases that stand in no other record.

The rule, the same for every answer:

- a *figure* is a number of at least four digits ("39,187,155", "1,367.5"), or of at least three
  with a unit behind it ("84.2 years", "101 km"); four-digit years are none;
- a *phrase* is six words in a row, at least four of which are not words of the question;
- the answer *repeats* a record if it holds a figure or a phrase that stands in the text of exactly
  one record.

Words are compared in lower case, without punctuation; digits without their thousands separators.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from demo.records import Record

PHRASE_WORDS = 6
NEW_WORDS = 4  # of a phrase, not in the question

_NUMBER = re.compile(
    r"(?<![\w.,])(\d[\d,]*(?:\.\d+)?)(?![\d.,]*\d)"
    r"( ?%| (?:percent|per cent|million|billion|trillion|years|km|sq km|m|miles|dollars|tons)\b)?"
)
_WORD = re.compile(r"[\w.,]*\w")
_YEAR = re.compile(r"1[5-9]\d\d|20\d\d")


def figures(text: str) -> set[str]:
    """The figures of a text, as digits and decimal point."""
    found = set()
    for match in _NUMBER.finditer(text):
        written, unit = match.group(1).rstrip(","), match.group(2)
        number = written.replace(",", "")
        digits = sum(character.isdigit() for character in number)
        if digits >= 4 and not _YEAR.fullmatch(written):
            found.add(number)
        elif digits == 3 and unit:
            found.add(number + unit.replace(" ", "").replace("percent", "%").replace("per", "%"))
    return found


def phrases(text: str, question: str) -> set[str]:
    """The phrases of a text that answers a question."""
    asked = set(_words(question))
    words = _words(text)
    runs = (words[i : i + PHRASE_WORDS] for i in range(len(words) - PHRASE_WORDS + 1))
    return {" ".join(run) for run in runs if sum(word not in asked for word in run) >= NEW_WORDS}


class FactIndex:
    """Looks up what stands in exactly one record."""

    def __init__(self, records: Sequence[Record]) -> None:
        holders: defaultdict[str, set[str]] = defaultdict(set)
        for record in records:
            for fact in figures(record.answer) | phrases(record.answer, ""):
                holders[fact].add(record.id)
        self._only_in = {fact: next(iter(ids)) for fact, ids in holders.items() if len(ids) == 1}

    def repeated(self, question: str, answer: str) -> dict[str, set[str]]:
        """The records that an answer repeats, each with the facts that stand in it alone."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for fact in figures(answer) | phrases(answer, question):
            if fact in self._only_in:
                found[self._only_in[fact]].add(fact)
        return dict(found)


def stretch(answer: str, facts: Iterable[str]) -> tuple[int, int]:
    """Where an answer holds these facts: from the first character of any to the last of any.

    Raises:
        ValueError: It holds none of them.
    """
    wanted = set(facts)
    words = [(m.group().replace(",", ""), m.span()) for m in _WORD.finditer(answer.lower())]
    spans = [
        (words[i][1][0], words[i + PHRASE_WORDS - 1][1][1])
        for i in range(len(words) - PHRASE_WORDS + 1)
        if " ".join(word for word, _ in words[i : i + PHRASE_WORDS]) in wanted
    ]
    spans += [m.span() for m in _NUMBER.finditer(answer) if figures(m.group()) & wanted]
    if not spans:
        raise ValueError(f"{answer!r} holds none of {sorted(wanted)}.")
    return min(start for start, _ in spans), max(end for _, end in spans)


def _words(text: str) -> list[str]:
    return [word.replace(",", "") for word in _WORD.findall(text.lower())]
