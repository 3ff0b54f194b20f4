"""A document as the one string that is tokenised, and where each of its texts stands in it.

- **Plain text** stands for itself.
- **A chat** is written by the tokenizer's chat template.
- **A chat, and no chat template**: the contents are concatenated as they stand, in order, with
  nothing between them and nothing stripped; whoever wants a space or a line break between prompt
  and response puts it into one of them.

A template may strip the contents or move the system message. Where each content stands is learnt
exactly: the template is rendered once more with a placeholder for each content, and what stands
between the placeholders is then matched against the real rendering. (Searching for the content
itself would find the response "assistant" in the role header before it.)

Importing this module loads neither torch nor transformers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from influence.documents import SEPARATOR, Document, Message
from influence.errors import InvalidInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Region:
    """One text of the document within the rendering.

    Attributes:
        start: Its first character in the rendering.
        end: One past its last.
        shown: Where its first character stands in `Document.text`.
        carries_loss: Whether training predicts it: plain text, and what the assistant says.
    """

    start: int
    end: int
    shown: int
    carries_loss: bool


@dataclass(frozen=True)
class Rendering:
    """The string to tokenise; ``regions`` in its order; ``templated``: a chat template wrote it."""

    text: str
    regions: list[Region]
    templated: bool


def render(document: Document, tokenizer: "PreTrainedTokenizerBase", name: str) -> Rendering:
    """Write a document as the model reads it; ``name`` is what messages call it.

    Raises:
        InvalidInput: The text is no valid Unicode, or the chat template refuses or rewrites it.
    """
    text = document.text
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"Character {error.start} of {name} is a lone surrogate "
            f"(U+{ord(text[error.start]):04X}), which is no text; repair its encoding."
        ) from error
    if document.plain is not None:
        return Rendering(text, [Region(0, len(text), 0, carries_loss=True)], templated=False)
    if tokenizer.chat_template:
        return _render_chat(document.messages, tokenizer, name)
    return _concatenate(document.messages)


def _concatenate(messages: Sequence[Message]) -> Rendering:
    regions: list[Region] = []
    start = shown = 0
    for message in messages:
        end = start + len(message.content)
        regions.append(Region(start, end, shown, carries_loss=message.role == "assistant"))
        start, shown = end, shown + len(message.content) + len(SEPARATOR)
    text = "".join(message.content for message in messages)
    return Rendering(text, regions, templated=False)


def _render_chat(
    messages: Sequence[Message], tokenizer: "PreTrainedTokenizerBase", name: str
) -> Rendering:
    """The chat as the template writes it, and where each content stands in it."""
    # Private-use characters: no template strips them or looks for them.
    placeholders = [f"\ue000{i}\ue001" for i in range(len(messages))]
    roles = [message.role for message in messages]
    rendered = _apply_template(roles, [message.content for message in messages], tokenizer, name)
    frame = _apply_template(roles, placeholders, tokenizer, name)
    found = [frame.find(placeholder) for placeholder in placeholders]  # -1: left out
    shown = [0]
    for message in messages:
        shown.append(shown[-1] + len(message.content) + len(SEPARATOR))

    regions: list[Region] = []
    at = read = 0  # how far the rendering and its frame have been matched
    # In the order of the rendering: some templates move the system message.
    for i in sorted(range(len(messages)), key=lambda i: found[i]):
        content, placeholder = messages[i].content, placeholders[i]
        if found[i] < 0 or frame.count(placeholder) > 1:
            raise _rewritten(name, i, roles[i])
        before = frame[read : found[i]]
        read = found[i] + len(placeholder)
        after = frame[read : min((f for f in found if f >= read), default=len(frame))]
        if not rendered.startswith(before, at):
            raise _rewritten(name, i, roles[i])
        start = at + len(before)
        for kept in (content, content.strip(), content.rstrip(), content.lstrip()):
            if rendered.startswith(kept + after, start):
                break
        else:
            raise _rewritten(name, i, roles[i])
        at = start + len(kept)
        regions.append(
            Region(start, at, shown[i] + content.find(kept), carries_loss=roles[i] == "assistant")
        )
    if rendered[at:] != frame[read:]:
        raise _rewritten(name, len(messages) - 1, roles[-1])
    return Rendering(rendered, regions, templated=True)


def _apply_template(
    roles: Sequence[str], contents: Sequence[str], tokenizer: "PreTrainedTokenizerBase", name: str
) -> str:
    from jinja2.exceptions import TemplateError

    chat = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=True)
    ]
    try:
        return tokenizer.apply_chat_template(chat, tokenize=False)  # type: ignore[return-value]
    except TemplateError as error:
        raise InvalidInput(
            f"The model's chat template refuses {name}, with the roles {', '.join(roles)}: {error} "
            "Use the roles it knows, in its order."
        ) from error


def _rewritten(name: str, index: int, role: str) -> InvalidInput:
    return InvalidInput(
        f"The model's chat template drops, repeats or rewrites message {index} ({role}) of {name}, "
        "so its tokens cannot be found; leave the message out or write it as the template keeps it."
    )
