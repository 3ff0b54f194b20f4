"""Questions that an index is asked: prompts with their answers, and the documents that hold them.

They come from a file of JSON lines, each with ``prompt``, ``response`` and, where it is known,
``documents``, the ids of those that state the answer; or from the index itself: the second half of
a passage as the answer to its first half, whose document is known for certain.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from influence.errors import CorpusError
from influence.store import IndexReader
from influence.stored_tokens import StoredTokens
from influence.tokens import TokenSequence, query_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from influence.model import LoadedModel

SHORTEST_ANSWER = 4  # targets in the second half of a passage that is asked about


@dataclass(frozen=True)
class Question:
    """One query.

    Attributes:
        tokens: Prompt and response as the model reads them; the response carries loss.
        text: The same for rankings that read texts.
        documents: Ids of documents that state the answer; empty where nobody knows.
    """

    tokens: TokenSequence
    text: str
    documents: tuple[str, ...]


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str, Field(min_length=1)]
    response: Annotated[str, Field(min_length=1)]
    documents: tuple[str, ...] = ()


def read_questions(path: Path, loaded: "LoadedModel", reader: IndexReader) -> list[Question]:
    """Read questions from JSON lines.

    Raises:
        CorpusError: A line is no question, names a document that the index has not, or there is
            none.
        QueryTooLong: One is longer than the model reads.
    """
    questions = []
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read: {error}. Give a file of JSON lines.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            asked = _Line.model_validate(json.loads(line))
        except (json.JSONDecodeError, ValidationError) as error:
            raise CorpusError(
                f"{path}, line {number}: {_fault(error)}. Each line is an object with prompt and "
                "response and, where they are known, documents."
            ) from error
        for name in asked.documents:
            if not reader.rows_of(name):
                raise CorpusError(
                    f"{path}, line {number}: document {name!r} has no passage in this index. "
                    "Correct the id, or leave the line out."
                )
        tokens = query_tokens(
            asked.prompt, asked.response, loaded.tokenizer, max_length=loaded.context_length
        )
        questions.append(Question(tokens, f"{asked.prompt} {asked.response}", asked.documents))
    if not questions:
        raise CorpusError(f"{path} is empty. Give JSON lines with a prompt and a response each.")
    return questions


def _fault(error: json.JSONDecodeError | ValidationError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"


def own_halves(
    reader: IndexReader, tokenizer: "PreTrainedTokenizerBase", *, count: int, seed: int
) -> list[Question]:
    """Passages of an index, drawn at random, each the question for its own second half.

    Args:
        reader: The index.
        tokenizer: The model's own.
        count: At most so many; passages with fewer than eight targets are passed over.
        seed: Same seed, same questions.

    Raises:
        CorpusError: No passage is long enough.
        IndexCorrupt: The tokens of a passage cannot be made again.
    """
    stored = StoredTokens(
        reader.document, tokenizer, max_length=reader.manifest.settings.max_length
    )
    questions: list[Question] = []
    for row in np.random.default_rng(seed).permutation(len(reader)):
        passage = reader.passage(int(row))
        if passage.target_tokens < 2 * SHORTEST_ANSWER:
            continue
        tokens = second_half(stored.of(passage))
        text = str(tokenizer.decode(tokens.input_ids, skip_special_tokens=True))
        questions.append(Question(tokens, text, (passage.document_id,)))
        if len(questions) == count:
            break
    if not questions:
        raise CorpusError(
            f"No passage of {reader.index_dir} has {2 * SHORTEST_ANSWER} tokens that carry loss. "
            "Give questions with --queries."
        )
    return questions


def second_half(tokens: TokenSequence) -> TokenSequence:
    """The same sequence with loss on the second half of its targets alone."""
    places = [place for place, target in enumerate(tokens.targets) if target]
    wanted = set(places[len(places) // 2 :])
    return replace(tokens, targets=[place in wanted for place in range(len(tokens))])


def known(questions: Sequence[Question]) -> list[Question]:
    """Those whose documents are known.

    Raises:
        CorpusError: There is none.
    """
    found = [question for question in questions if question.documents]
    if not found:
        raise CorpusError(
            "No question names the documents that state its answer. Add their ids as documents."
        )
    return found
