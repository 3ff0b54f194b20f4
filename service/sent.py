"""Schemas of documents that are sent to be added; importing them loads nothing heavy.

What keeps them and tells of them is `service.additions`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_DOCUMENTS = 1_000


class _Schema(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SentMessage(_Schema):
    """One turn of a chat."""

    role: str = Field(min_length=1, max_length=100, description="Who speaks.", examples=["user"])
    content: str = Field(max_length=1_000_000, description="What is said.", examples=["Who?"])


class SentDocument(_Schema):
    """A document as `whence index` takes it: text, prompt and response, or messages."""

    id: str = Field(
        min_length=1, max_length=1_000, description="Its id.", examples=["factbook/egypt"]
    )
    text: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000_000,
        description="Plain text.",
        examples=["The population of Egypt is 111,247,248."],
    )
    prompt: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000_000,
        description="A question, with a response.",
        examples=[None],
    )
    response: str | None = Field(
        default=None,
        min_length=1,
        max_length=1_000_000,
        description="Its answer.",
        examples=[None],
    )
    messages: tuple[SentMessage, ...] | None = Field(
        default=None, min_length=1, max_length=1_000, description="A chat.", examples=[None]
    )
    title: str | None = Field(
        default=None, max_length=1_000, description="Its title.", examples=["Egypt: People"]
    )
    source: str | None = Field(
        default=None, max_length=1_000, description="Where it is from.", examples=["Factbook"]
    )
    owner: str | None = Field(
        default=None, max_length=1_000, description="Who owns it.", examples=["Egypt"]
    )
    licence: str | None = Field(
        default=None, max_length=1_000, description="Its licence.", examples=["CC BY 4.0"]
    )
    url: str | None = Field(
        default=None,
        max_length=2_000,
        description="Its address.",
        examples=["https://example.org/egypt"],
    )
    metadata: dict[str, Any] | None = Field(
        default=None, description="What else there is to say of it.", examples=[{"year": 2026}]
    )

    @model_validator(mode="after")
    def _has_one_shape(self) -> "SentDocument":
        given = [n for n in ("text", "prompt", "response", "messages") if getattr(self, n)]
        if given not in (["text"], ["prompt", "response"], ["messages"]):
            said = " and ".join(given) or "none of them"
            raise ValueError(f"text, prompt with response, or messages are wanted, not {said}")
        return self


class AdditionRequest(_Schema):
    """Documents to be added to the index."""

    documents: tuple[SentDocument, ...] = Field(
        min_length=1, max_length=MAX_DOCUMENTS, description="All of them are added, or none."
    )
    replace: bool = Field(
        default=False,
        strict=True,
        description="Take the place of documents of the same id, rather than fail.",
        examples=[False],
    )

    @model_validator(mode="after")
    def _names_each_once(self) -> "AdditionRequest":
        ids = [document.id for document in self.documents]
        if len(set(ids)) < len(ids):
            again = next(one for one in ids if ids.count(one) > 1)
            raise ValueError(f"the id {again[:80]!r} comes twice")
        return self


class Addition(_Schema):
    """What has become of some documents."""

    id: str = Field(description="Of the addition.", examples=["01790812800000000000-0f3a9c5d"])
    state: Literal["waiting", "done", "failed"] = Field(
        description="waiting: also while it is carried out.", examples=["waiting"]
    )
    documents: int = Field(description="How many were sent.", examples=[12])
    version: str | None = Field(
        default=None,
        description="The version of the index that has them; it is served within seconds.",
        examples=["000002-1b2c3d4e5f60"],
    )
    detail: str | None = Field(
        default=None,
        description="Why it failed; nothing was added then.",
        examples=["1 documents have ids that the index has already."],
    )
