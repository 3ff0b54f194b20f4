"""One record of the demo corpus: a question, and a public text that answers it."""

from dataclasses import dataclass
from typing import Any

LICENCE = "US government work"


@dataclass(frozen=True)
class Record:
    """A question and the text of a source that answers it; ``group`` keeps the choice varied."""

    id: str
    question: str
    answer: str
    title: str
    source: str
    owner: str
    group: str
    url: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The record as a line of the corpus: a chat of one question and one answer."""
        line: dict[str, Any] = {
            "id": self.id,
            "messages": [
                {"role": "user", "content": self.question},
                {"role": "assistant", "content": self.answer},
            ],
            "title": self.title,
            "source": self.source,
            "owner": self.owner,
            "licence": LICENCE,
        }
        if self.url:
            line["url"] = self.url
        return line
