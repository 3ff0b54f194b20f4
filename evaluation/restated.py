"""Restated facts: every fact stands in several documents, and is asked for in yet other words.

    documents   tell me the music of Vapax now  -> it is organ
                what is the music of Vapax ?    -> it is organ
                please name the music of Vapax .-> it is organ
    question    who knows the music of Vapax ?  -> it is organ

Documents are records of a prompt and a response, and the response alone carries loss. Where a fact
stands once (`evaluation.facts`), a model that knows it by heart has no gradient left for it and one
that does not cannot answer; where it stands several times, answers depend on how many of its
documents a model saw, gradually, which is what an influence can predict.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation.facts import NAME_ENDS, NAME_STARTS, RELATIONS, PlantedFacts
from evaluation.language import LanguageTask
from influence.documents import Document, Message

STATEMENTS = 3  # documents of each fact
NOUNS = ("town", "pet", "trade", "music", "crop")  # of `RELATIONS`
WORDINGS = (  # a response follows its prompt at once
    "what is the {noun} of {person} ? ",
    "tell me the {noun} of {person} now ",
    "please name the {noun} of {person} . ",
    "who knows the {noun} of {person} ? ",
    "say what is the {noun} of {person} ! ",
)


@dataclass(frozen=True)
class RestatedFacts(PlantedFacts):
    """`PlantedFacts` with all documents that state an answer; ``answers`` has the first of them.

    Attributes:
        stating: For each question the indices of the documents that state its answer.
    """

    stating: tuple[tuple[int, ...], ...]


def restate_facts(documents: int, questions: int, *, seed: int) -> RestatedFacts:
    """Draw people, their facts and the wordings; a question's wording is in none of its documents.

    Args:
        documents: `STATEMENTS` for each person; 240 people exist.
        questions: About different people.
        seed: Same seed, same corpus.

    Raises:
        ValueError: More people than there are, a broken number of them, or more questions.
    """
    names = [start + end for start in NAME_STARTS for end in NAME_ENDS]
    people, left = divmod(documents, STATEMENTS)
    if left or not 0 < people <= len(names) or not 0 < questions <= people:
        raise ValueError(
            f"{documents} documents and {questions} questions are asked for; each person has "
            f"{STATEMENTS} documents and at most one question, and there are {len(names)} people."
        )
    draw = np.random.default_rng(seed)
    corpus, asked = [], []
    for person in (names[i] for i in draw.permutation(len(names))[:people]):
        relation = draw.integers(len(RELATIONS))
        value = RELATIONS[relation][2].split()[draw.integers(8)]
        prompts = [
            WORDINGS[i].format(noun=NOUNS[relation], person=person)
            for i in draw.permutation(len(WORDINGS))
        ]
        response = f"it is {value}"
        for prompt in prompts[:STATEMENTS]:
            messages = (Message("user", prompt), Message("assistant", response))
            corpus.append(Document(f"fact-{len(corpus):03d}", messages=messages, title=person))
        asked.append((prompts[STATEMENTS], response))
    about = draw.permutation(people)[:questions]
    order = draw.permutation(documents)  # statements of one fact lie apart
    place = np.argsort(order).reshape(people, STATEMENTS)
    stating = tuple(tuple(sorted(place[person].tolist())) for person in about)
    return RestatedFacts(
        tuple(corpus[i] for i in order),
        tuple(asked[i] for i in about),
        np.array([places[0] for places in stating]),
        stating,
    )


class RestatedTask(LanguageTask):
    """The language task on restated facts."""

    @cached_property
    def facts(self) -> RestatedFacts:
        """The corpus and its questions."""
        s = self.settings
        return restate_facts(s.documents, s.questions, seed=s.corpus_seed)
