"""A chat in the form of the OpenAI API; importing this loads neither torch nor faiss.

What a request may hold besides the fields that are here depends on who writes the answer, so it is
kept: a server behind this one gets it as it came, a model in this process refuses it by name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.schemas import Filter, Ranking
from service.usage import Usage

MAX_MESSAGES = 1_000
MAX_STOPS = 4
MAX_CHARACTERS = 200_000


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")


class ChatMessage(_Kept):
    """One turn of the conversation."""

    role: str = Field(
        min_length=1, max_length=40, description="system, user or assistant.", examples=["user"]
    )
    content: str | list[dict[str, Any]] | None = Field(
        default=None,
        description="What was said: a text, or parts of the type text.",
        examples=["How many people live in Egypt?"],
    )


class StreamOptions(_Kept):
    """What a stream holds besides the answer."""

    include_usage: bool = Field(
        default=False,
        description="Whether an event before the last ones tells the tokens.",
        examples=[True],
    )


class AttributionOptions(BaseModel):
    """How the answer is attributed; the fields are those of `POST /attribute`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int = Field(
        default=10, ge=1, le=100, strict=True, description="Passages on each side.", examples=[10]
    )
    ranking: Ranking = Field(
        default="relative", description="As of POST /attribute.", examples=["relative"]
    )
    filter: Filter | None = Field(
        default=None,
        description="Compare only with some documents.",
        examples=[{"owners": ["Egypt"]}],
    )
    opponents: bool = Field(
        default=True, strict=True, description="Also those against the answer.", examples=[True]
    )
    explain: bool = Field(
        default=False,
        strict=True,
        description="Also split every influence over tokens and layers.",
        examples=[False],
    )
    usage: Usage | None = Field(
        default=None, description="Weight of the answer in the ledger.", examples=[None]
    )


Stop = Annotated[str, Field(min_length=1, max_length=1_000)]


class ChatRequest(_Kept):
    """A conversation, and how its next turn is to be written."""

    model: str = Field(
        min_length=1,
        max_length=1_000,
        description="One of GET /v1/models.",
        examples=["SmolLM2-135M-Instruct"],
    )
    messages: tuple[ChatMessage, ...] = Field(
        min_length=1,
        max_length=MAX_MESSAGES,
        description="The conversation, oldest turn first.",
        examples=[[{"role": "user", "content": "How many people live in Egypt?"}]],
    )
    stream: bool | None = Field(
        default=None, description="Whether the answer comes in pieces.", examples=[False]
    )
    stream_options: StreamOptions | None = Field(
        default=None, description="Of a stream.", examples=[{"include_usage": True}]
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Most tokens of the answer.", examples=[64]
    )
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="Likewise; the newer name.", examples=[64]
    )
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        description="0: the likeliest token each time. By default what the model itself says.",
        examples=[0],
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Draw among the likeliest tokens that have this probability together.",
        examples=[0.9],
    )
    seed: int | None = Field(
        default=None,
        ge=-(2**63),
        lt=2**63,
        description="The same seed draws the same answer.",
        examples=[7],
    )
    stop: Stop | tuple[Stop, ...] | None = Field(
        default=None,
        max_length=1_000,
        description="Texts, at most four, before which the answer ends.",
        examples=[["\n\n"]],
    )
    attribution: AttributionOptions | None = Field(
        default=None,
        description="Also attribute the answer; {} for the defaults.",
        examples=[None, {"top_k": 3}],
    )

    @model_validator(mode="after")
    def _stops_are_few(self) -> "ChatRequest":
        if len(self.stops) > MAX_STOPS:
            raise ValueError(f"stop has {len(self.stops)} texts; at most {MAX_STOPS} are allowed")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop or ()

    @property
    def streamed(self) -> bool:
        """Whether the answer comes in pieces."""
        return bool(self.stream)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream tells the tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionUsage(_Kept):
    """Tokens of a chat."""

    prompt_tokens: int = Field(description="Of the conversation.", examples=[31])
    completion_tokens: int = Field(description="Of the answer.", examples=[17])
    total_tokens: int = Field(description="Together.", examples=[48])


class AnswerMessage(_Kept):
    """The next turn."""

    role: Literal["assistant"] = Field(description="Always.", examples=["assistant"])
    content: str | None = Field(
        description="What the model said.", examples=["The population of Egypt is 111,247,248."]
    )


class Choice(_Kept):
    """One answer; there is only one."""

    index: int = Field(description="Always 0.", examples=[0])
    message: AnswerMessage
    finish_reason: str | None = Field(
        description="stop: it ended by itself or at a stop; length: at the most tokens.",
        examples=["stop"],
    )


class ChatCompletion(_Kept):
    """The answer to a chat."""

    id: str = Field(description="The request id with chatcmpl- before it.", examples=["chatcmpl-9"])
    object: Literal["chat.completion"] = Field(description="Always.", examples=["chat.completion"])
    created: int = Field(description="When, in seconds since 1970.", examples=[1790812800])
    model: str = Field(description="Who answered.", examples=["SmolLM2-135M-Instruct"])
    choices: tuple[Choice, ...] = Field(description="The answer.")
    usage: CompletionUsage | None = None


class ModelCard(_Kept):
    """A model that answers."""

    id: str = Field(description="Its name.", examples=["SmolLM2-135M-Instruct"])
    object: Literal["model"] = Field(description="Always.", examples=["model"])
    created: int = Field(description="When it was loaded, since 1970.", examples=[1790812800])
    owned_by: str = Field(description="Who serves it.", examples=["whence"])


class ModelList(_Kept):
    """The models that answer."""

    object: Literal["list"] = Field(description="Always.", examples=["list"])
    data: tuple[ModelCard, ...] = Field(description="The models.")
