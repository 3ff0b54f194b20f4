"""What a model in this process can be asked for; everything else is refused by name.

A parameter that is set to what it is anyway is no wish: many programs send all of them.
"""

from typing import Any

from influence.documents import Message
from influence.errors import InvalidInput, Unsupported
from service.chat.schemas import ChatMessage, ChatRequest

# Of the OpenAI API, with the values that ask for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
# They say who asks, or how to keep it apart, and change no answer.
_ABOUT_THE_CALLER = {"user", "safety_identifier", "prompt_cache_key", "metadata"}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_OF_A_MESSAGE = {"name", "refusal"}


def check_supported(request: ChatRequest) -> None:
    """Return if the request asks for nothing that a model here cannot do.

    Raises:
        Unsupported: It does; the message names the parameter.
    """
    asked = {**(request.model_extra or {})}
    for name, value in asked.items():
        if value is None or name in _ABOUT_THE_CALLER or value in _NEUTRAL.get(name, ()):
            continue
        shown = name[:80]
        what = f"{shown} other than its default" if name in _NEUTRAL else shown
        raise Unsupported(
            shown, f"This server does not know the parameter {what}. Ask again without it."
        )
    options = request.stream_options
    if options is not None and not request.streamed:
        raise Unsupported(
            "stream_options", "stream_options belongs to a stream. Send stream: true, or leave it."
        )


def conversation_of(request: ChatRequest) -> tuple[Message, ...]:
    """The turns of a chat, as texts.

    Raises:
        Unsupported: A role or a part of a turn that a model here cannot read.
        InvalidInput: The last turn is not the user's.
    """
    messages = tuple(_message(number, one) for number, one in enumerate(request.messages))
    if messages[-1].role != "user":
        raise InvalidInput(
            f"The last message is of the role {messages[-1].role}, and an answer follows one of "
            "the role user. Send the question last."
        )
    return messages


def _message(number: int, message: ChatMessage) -> Message:
    where = f"messages[{number}]"
    if message.role not in _ROLES:
        raise Unsupported(
            f"{where}.role",
            f"Message {number} is of the role {message.role!r}. Use system, user and assistant.",
        )
    unknown = [
        name
        for name, value in (message.model_extra or {}).items()
        if value is not None and name not in _OF_A_MESSAGE
    ]
    if unknown:
        raise Unsupported(
            f"{where}.{unknown[0][:80]}",
            f"Message {number} has {unknown[0][:80]!r}, which this server does not know. Send role "
            "and content.",
        )
    content = message.content
    if isinstance(content, list):
        content = "".join(_text_part(number, part) for part in content)
    if not content:
        raise InvalidInput(f"Message {number} is empty. Send texts, or leave it out.")
    return Message(_ROLES[message.role], content)


def _text_part(number: int, part: dict[str, Any]) -> str:
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise Unsupported(
            f"messages[{number}].content",
            f"Message {number} has a part of the type {str(part.get('type'))[:40]!r}, and the "
            "model reads text alone. Send parts of the type text.",
        )
    return part["text"]
