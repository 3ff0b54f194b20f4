"""What was said before a prompt, as a request tells it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MAX_TURNS = 200
MAX_CHARACTERS = 200_000  # of a turn


class ContextTurn(BaseModel):
    """One turn of the conversation before the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["system", "user", "assistant"] = Field(
        description="Who said it.", examples=["user"]
    )
    content: str = Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        description="What was said.",
        examples=["Which country is the Nile in?"],
    )


Context = Annotated[
    tuple[ContextTurn, ...] | None,
    Field(
        min_length=1,
        max_length=MAX_TURNS,
        description=(
            "The conversation before the prompt, oldest first. The response is read behind all of "
            "it, and it alone is explained. Null: the prompt was the first thing said."
        ),
        examples=[None, [{"role": "user", "content": "Which country is the Nile in?"}]],
    ),
]
