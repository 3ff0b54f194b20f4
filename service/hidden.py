"""What is withheld from every answer: texts of blocked documents, and personal data in all others.

Scores stay: an owner's total, a rank, a share do not change because a text may not be shown. A
blocked document loses its words and everything that describes it but its owner and source; a match
of a pattern is covered by as many blocks as it has characters, so every offset still holds.

Both lists are files that are read again when they have changed: a text that has to go is gone from
the next answer on, cached ones included. Importing this module loads neither torch nor faiss.
"""

import re
from pathlib import Path
from typing import Any

from influence.errors import ListUnavailable
from service.schemas import AttributeResult, DocumentResult, Hit
from service.watched import WatchedFile

COVER = "█"


class Hidden:
    """The two lists of an operator.

    Args:
        blocked_file: Ids of documents, one a line.
        patterns_file: Regular expressions of Python, one a line.

    Raises:
        ListUnavailable: A file cannot be read, or holds no regular expression.
    """

    def __init__(self, blocked_file: Path | None, patterns_file: Path | None) -> None:
        self._blocked = None if blocked_file is None else WatchedFile(blocked_file, _read_ids)
        self._patterns = None if patterns_file is None else WatchedFile(patterns_file, _patterns)

    def in_result(self, result: AttributeResult) -> AttributeResult:
        """An answer without what is withheld."""
        if self._blocked is None and self._patterns is None:
            return result
        return result.model_copy(
            update={
                "proponents": tuple(map(self._in_hit, result.proponents)),
                "opponents": tuple(map(self._in_hit, result.opponents)),
            }
        )

    def in_document(self, document: DocumentResult) -> DocumentResult:
        """A document without what is withheld."""
        if self._is_blocked(document.id):
            nothing = {"text": "", "title": None, "url": None, "metadata": {}, "withheld": True}
            return document.model_copy(update=nothing)
        covered = self._cover(document.model_dump(include={"text", "title", "url", "metadata"}))
        return document.model_copy(update=covered)

    def _in_hit(self, hit: Hit) -> Hit:
        if self._is_blocked(hit.document_id):
            nothing = {"text": "", "title": None, "url": None, "tokens": None, "withheld": True}
            return hit.model_copy(update=nothing)
        return hit.model_copy(update=self._cover(hit.model_dump(include={"text", "title", "url"})))

    def _is_blocked(self, document_id: str) -> bool:
        return self._blocked is not None and document_id in self._blocked.content()

    def _cover(self, value: Any) -> Any:
        """The same with every match covered, however deep it lies."""
        match value:
            case str() if self._patterns is not None:
                for pattern in self._patterns.content():
                    value = pattern.sub(lambda found: COVER * len(found[0]), value)
                return value
            case dict():
                return {key: self._cover(inner) for key, inner in value.items()}
            case list() | tuple():
                return [self._cover(inner) for inner in value]
            case _:
                return value


def _read_ids(path: Path) -> frozenset[str]:
    return frozenset(_lines(path))


def _patterns(path: Path) -> tuple[re.Pattern[str], ...]:
    found = []
    for line in _lines(path):
        try:
            found.append(re.compile(line))
        except re.error as error:
            raise ListUnavailable(
                f"{path} holds {line!r}, which is no regular expression: {error}. Correct it."
            ) from error
    return tuple(found)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ListUnavailable(
            f"The list {path} of what is withheld cannot be read: {error}. Put it back, in UTF-8, "
            "or serve without it."
        ) from error
