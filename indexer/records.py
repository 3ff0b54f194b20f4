"""A record as it comes out of a file -> a `Document`, or the reason why not.

A record has one of three shapes: ``text``; ``prompt`` + ``response``; ``messages`` (objects with
``role`` and ``content``, both strings; what else they have is not read). Beside it, all optional:
``id``, ``title``, ``source``, ``owner``, ``licence`` (or ``license``), ``url`` and ``metadata``.
Any other field becomes an entry of the metadata, where an entry of the same name in the record's
own metadata goes before it. A null stands for a field that is not there.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

from influence.documents import Document, Message

SHAPES = ("text", "prompt", "response", "messages")


class BadRecord(ValueError):
    """One record cannot be used; the message says why, in a clause without the place."""


def parse_record(record: Any, default_id: str) -> Document:
    """Check a record and make a document of it.

    Args:
        record: What the file holds: a mapping of fields.
        default_id: The id of a record that has none.

    Raises:
        BadRecord: Wrong types, an empty text, no shape or more than one, no valid Unicode.
    """
    if not isinstance(record, Mapping):
        raise BadRecord(f"it is {_kind(record)}, not an object with fields")
    fields = {name: value for name, value in record.items() if value is not None}
    plain, messages = _shape(fields)
    document = Document(
        id=_id(fields.pop("id", default_id)),
        plain=plain,
        messages=messages,
        title=_label(fields, "title"),
        source=_label(fields, "source"),
        owner=_label(fields, "owner"),
        licence=_licence(fields),
        url=_label(fields, "url"),
        metadata=_metadata(fields),
    )
    try:
        canonical_json(document)
    except UnicodeEncodeError as error:
        raise BadRecord("it holds characters that are no valid UTF-8") from error
    return document


def canonical_json(document: Document) -> bytes:
    """The document as bytes which depend on nothing but its content, for the fingerprint.

    Raises:
        UnicodeEncodeError: A lone surrogate, which is no text.
    """
    content = (
        document.plain
        if document.plain is not None
        else [[message.role, message.content] for message in document.messages]
    )
    labels = [document.title, document.source, document.owner, document.licence, document.url]
    everything = [document.id, content, labels, document.metadata]
    return json.dumps(everything, ensure_ascii=False, sort_keys=True).encode()


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise BadRecord(f"its id is {_kind(value)}, not a string or a whole number")
    return value


def _shape(fields: dict[str, Any]) -> tuple[str | None, tuple[Message, ...]]:
    """Take the fields of the shape out of a record: `Document.plain` and `Document.messages`."""
    present = {name: fields.pop(name) for name in SHAPES if name in fields}
    names = " and ".join(present)
    match tuple(present):
        case ("text",):
            return _text("text", present["text"]), ()
        case ("prompt", "response"):
            prompt = Message("user", _text("prompt", present["prompt"]))
            return None, (prompt, Message("assistant", _text("response", present["response"])))
        case ("messages",):
            return None, _messages(present["messages"])
        case ():
            has = f"only {', '.join(sorted(map(str, fields)))}" if fields else "no field at all"
            raise BadRecord(f"it has no text, prompt and response, or messages, but {has}")
        case ("prompt",) | ("response",):
            raise BadRecord(f"it has a {names} alone, and prompt and response belong together")
    raise BadRecord(f"it has {names}, and may have one of text, prompt and response, messages")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadRecord(f"its {name} is {_kind(value)}, not a string")
    if not value.strip():
        raise BadRecord(f"its {name} is empty")
    return value


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise BadRecord(f"its messages are {_kind(value)}, not a list")
    messages = []
    for number, turn in enumerate(value):
        if not isinstance(turn, Mapping):
            raise BadRecord(f"its message {number} is {_kind(turn)}, not an object")
        for name in ("role", "content"):
            if not isinstance(turn.get(name), str):
                raise BadRecord(f"the {name} of its message {number} is {_kind(turn.get(name))}")
        messages.append(Message(turn["role"], turn["content"]))
    if not any(m.role == "assistant" and m.content.strip() for m in messages):
        raise BadRecord("its messages hold nothing that the assistant says")
    return tuple(messages)


def _label(fields: dict[str, Any], name: str) -> str | None:
    value = fields.pop(name, None)
    if value is not None and not isinstance(value, str):
        raise BadRecord(f"its {name} is {_kind(value)}, not a string")
    return value or None


def _licence(fields: dict[str, Any]) -> str | None:
    licence = _label(fields, "licence")
    license_ = _label(fields, "license")
    if licence and license_ and licence != license_:
        raise BadRecord(f"its licence is {licence!r} and its license {license_!r}")
    return licence or license_


def _metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the record and every field that is left."""
    own = fields.pop("metadata", {})
    if not isinstance(own, Mapping):
        raise BadRecord(f"its metadata is {_kind(own)}, not an object")
    return {str(name): _plain(value) for name, value in (fields | dict(own)).items()}


def _plain(value: Any) -> Any:
    """What JSON can hold: dates become text, bytes their number, a NaN nothing."""
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return str(value)


def _kind(value: Any) -> str:
    """A value as a word of a message: short whatever it is."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return "text" if value.strip() else "empty"
    if isinstance(value, bool | int | float):
        return f"{value!r}"
    return {"list": "a list", "dict": "an object"}.get(type(value).__name__, type(value).__name__)
