"""A document of the corpus, in the three shapes in which people have them.

Plain ``text``; ``prompt`` + ``response``; or ``messages`` of a chat. Whatever the shape, a document
has one *display text*, and every character offset in Whence points into it:

- plain: the text itself;
- prompt + response: the prompt, an empty line, the response;
- messages: the contents of the messages, an empty line between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SEPARATOR = "\n\n"


@dataclass(frozen=True)
class Message:
    """One turn of a chat; turns of the role ``assistant`` carry the loss."""

    role: str
    content: str


@dataclass(frozen=True)
class Turn:
    """Who says the characters ``[start, end)`` of the display text."""

    role: str
    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """One item of the corpus; either ``plain`` or ``messages`` is set, never both.

    A prompt + response record is held as the two messages ``user`` and ``assistant``.
    """

    id: str
    plain: str | None = None
    messages: tuple[Message, ...] = ()
    title: str | None = None
    source: str | None = None
    owner: str | None = None
    licence: str | None = None
    url: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The display text."""
        if self.plain is not None:
            return self.plain
        return SEPARATOR.join(message.content for message in self.messages)

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The messages as stretches of the display text; none for plain text."""
        turns = []
        start = 0
        for message in self.messages:
            turns.append(Turn(message.role, start, start + len(message.content)))
            start = turns[-1].end + len(SEPARATOR)
        return tuple(turns)
