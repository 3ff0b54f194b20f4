"""The demo corpus: some hundred records of public text, each with its owner.

Three fifths are sections of the CIA World Factbook (owner: the country), the rest paragraphs of
State of the Union messages (owner: the president). Both are works of the US government and come in
Python packages. The choice is made by a seed, and equal seeds give equal bytes.
"""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from demo.factbook import COUNTRIES, factbook_records
from demo.names import proper_names
from demo.records import Record
from demo.speeches import speech_records
from influence.atomic import storage_errors, write_bytes

DOCUMENTS = 240
FACTBOOK_SHARE = 0.6
ANSWER_CHARACTERS = range(48, 340)
EVERY_COUNTRY_HAS = "Population"  # the same question of every country: answers get mixed up here


def build_corpus(path: Path, *, seed: int = 0, documents: int = DOCUMENTS) -> list[Record]:
    """Write the corpus as JSON lines and return its records.

    Raises:
        StorageFull: The file cannot be written.
    """
    records = choose_records(seed=seed, documents=documents)
    lines = (json.dumps(record.as_json(), ensure_ascii=False) for record in records)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return records


def choose_records(*, seed: int, documents: int) -> list[Record]:
    """The records of the corpus, no question and no answer twice, Factbook first."""
    rng = random.Random(seed)
    from_factbook = round(documents * FACTBOOK_SHARE)
    chosen = choose_sections(usable(factbook_records()), from_factbook, rng)
    chosen += choose_paragraphs(usable(speech_records()), documents - len(chosen), rng)
    return chosen


def usable(records: Iterable[Record]) -> list[Record]:
    """Records of a length that a small model can learn, each question and answer once."""
    seen: set[str] = set()
    kept = []
    for record in records:
        if len(record.answer) not in ANSWER_CHARACTERS:
            continue
        if record.question in seen or record.answer in seen:
            continue
        seen |= {record.question, record.answer}
        kept.append(record)
    return kept


def choose_sections(records: list[Record], count: int, rng: random.Random) -> list[Record]:
    """Sections spread evenly: every country has its population and about as many others."""
    of_country: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        of_country[record.owner].append(record)
    chosen = [record for record in records if record.group == EVERY_COUNTRY_HAS][:count]
    taken = {record.id for record in chosen}
    used = Counter(record.group for record in chosen)
    while len(chosen) < count:
        before = len(chosen)
        for country in rng.sample(sorted(of_country), len(of_country)):
            left = [record for record in of_country[country] if record.id not in taken]
            if left and len(chosen) < count:
                rng.shuffle(left)
                record = min(left, key=lambda record: used[record.group])
                chosen.append(record)
                taken.add(record.id)
                used[record.group] += 1
        if len(chosen) == before:
            break
    order = {country: number for number, country in enumerate(COUNTRIES.values())}
    return sorted(chosen, key=lambda record: (order[record.owner], record.id))


def choose_paragraphs(records: list[Record], count: int, rng: random.Random) -> list[Record]:
    """Paragraphs in turn from every president, the most telling first; in order of time."""
    place = {record.id: number for number, record in enumerate(records)}
    of_president: defaultdict[str, list[Record]] = defaultdict(list)
    for record in rng.sample(records, len(records)):
        of_president[record.owner].append(record)
    turns = []
    for own in of_president.values():
        own.sort(key=lambda record: -telling(record.answer))
        turns += [(turn, place[record.id], record) for turn, record in enumerate(own)]
    chosen = [record for _, _, record in sorted(turns, key=lambda entry: entry[:2])[:count]]
    return sorted(chosen, key=lambda record: place[record.id])


def telling(text: str) -> int:
    """How much of a text could only be from there: up to two figures and three names count."""
    figures = re.findall(r"\d[\d,.]{2,}\d", text)
    return min(len(figures), 2) + min(len(set(proper_names(text))), 3)
