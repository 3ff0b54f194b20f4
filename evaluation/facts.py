"""Planted facts: a corpus of one-fact documents, and questions that each document alone answers.

    document   the pet of Kutesh is heron               one of several phrasings, the value last
    question   which animal does Kutesh keep ? it is -> heron

Every person has one fact, and relations and values are shared with other people, so a question has
one document that states its answer, others that speak for the same value, and others that speak
against it. Some documents have the form of a question; nobody whose document has it is asked
about, so question and document share the name and the value but hardly another word.

The vocabulary is one token a word: a model small enough to be retrained a hundred times has no use
for a larger one.
"""

from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from influence.documents import Document
from influence.tokens import Passage, TokenSequence, document_passages, query_tokens

NAME_STARTS = [
    "Ba",
    "Do",
    "Fe",
    "Gi",
    "Ku",
    "La",
    "Mo",
    "Ne",
    "Pa",
    "Ri",
    "So",
    "Tu",
    "Va",
    "We",
    "Xi",
    "Zo",
]
NAME_ENDS = [
    "dan",
    "rik",
    "mel",
    "sot",
    "bur",
    "nev",
    "lin",
    "gar",
    "tesh",
    "wol",
    "fim",
    "pax",
    "hod",
    "yun",
    "ces",
]

# (statements; question; values). All end in "is" and the value: a small model that reads from left
# to right learns one way to answer, whatever the phrasing, and so can answer a question about a
# fact that it has met as a statement only.
RELATIONS = (
    (
        ("the town where {p} lives is {v}", "the home of {p} is {v}", "what {p} calls home is {v}"),
        "where does {p} live ? it is {v}",
        "Tarn Velm Osk Ruda Pell Grom Isk Wend",
    ),
    (
        ("the animal that {p} keeps is {v}", "the pet of {p} is {v}", "what {p} feeds is {v}"),
        "which animal does {p} keep ? it is {v}",
        "heron otter goat lynx raven toad mule swan",
    ),
    (
        ("the work that {p} does is {v}", "the trade of {p} is {v}", "what {p} learnt is {v}"),
        "how does {p} earn bread ? it is {v}",
        "baking forging weaving sewing masonry coopering mining copying",
    ),
    (
        ("the music that {p} makes is {v}", "the play of {p} is {v}", "what {p} practises is {v}"),
        "which instrument has {p} got ? it is {v}",
        "lute harp drum flute viol horn bell organ",
    ),
    (
        ("the crop that {p} sows is {v}", "the harvest of {p} is {v}", "what {p} sells is {v}"),
        "which plant does {p} grow ? it is {v}",
        "barley hemp beans hops flax rye leeks mint",
    ),
)
QUESTION_SHARE = 0.25  # of the documents, that have the form of a question


@dataclass(frozen=True)
class PlantedFacts:
    """The corpus and its questions.

    Attributes:
        documents: One fact each.
        questions: Prompt and response of each question.
        answers: For each question the index of the document that states its answer, ``[Q]``.
    """

    documents: tuple[Document, ...]
    questions: tuple[tuple[str, str], ...]
    answers: np.ndarray

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token a word of the corpus and its questions, and nothing else."""
        texts = [document.text for document in self.documents]
        texts += [prompt + response for prompt, response in self.questions]
        words = sorted({word for text in texts for word in text.split()})
        vocabulary = {word: i for i, word in enumerate(["<end>", "<unknown>", *words])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            eos_token="<end>",
            pad_token="<end>",
            unk_token="<unknown>",
        )

    def passages(self, tokenizer: PreTrainedTokenizerFast) -> list[Passage]:
        """One passage a document."""
        return [
            passage
            for document in self.documents
            for passage in document_passages(document, tokenizer, max_length=64)
        ]

    def queries(self, tokenizer: PreTrainedTokenizerFast) -> list[TokenSequence]:
        """The questions with their answers as the model reads them; the answer is the target."""
        return [
            query_tokens(prompt, response, tokenizer, max_length=64)
            for prompt, response in self.questions
        ]


def plant_facts(documents: int, questions: int, *, seed: int) -> PlantedFacts:
    """Draw people, their facts and the phrasings.

    Args:
        documents: One person and one fact each; 240 people exist.
        questions: About different people whose documents are statements.
        seed: Same seed, same corpus.

    Raises:
        ValueError: More documents than people, or more questions than statements.
    """
    people = [start + end for start in NAME_STARTS for end in NAME_ENDS]
    statements = documents - round(QUESTION_SHARE * documents)
    if not 0 < documents <= len(people) or not 0 < questions <= statements:
        raise ValueError(
            f"{documents} documents and {questions} questions are asked for; there are "
            f"{len(people)} people, and {statements} of the documents are statements."
        )
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(len(people))[:documents]
    corpus, asked = [], []
    for number, person in enumerate(people[i] for i in chosen):
        phrasings, question, values = RELATIONS[draw.integers(len(RELATIONS))]
        value = values.split()[draw.integers(8)]
        phrasing = phrasings[draw.integers(len(phrasings))] if number < statements else question
        corpus.append(
            Document(
                id=f"fact-{number:03d}",
                plain=phrasing.format(p=person, v=value),
                title=person,
            )
        )
        prompt = question.format(p=person, v="")
        asked.append((prompt, value))
    about = draw.permutation(statements)[:questions]
    order = draw.permutation(documents)  # statements and questions mixed
    place = np.argsort(order)
    return PlantedFacts(
        tuple(corpus[i] for i in order),
        tuple(asked[i] for i in about),
        place[about],
    )
