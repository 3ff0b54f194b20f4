"""Documents and queries as token sequences with their targets and character offsets.

A document is rendered to one string (`influence.rendering`), tokenised once with character offsets,
and cut into windows.

Targets, the tokens that carry loss: all of a plain text; of a chat those that overlap what the
assistant says, and the end-of-turn token that a chat template writes directly behind it (training
predicts that one too). A token that overlaps both a prompt and the response after it is a token of
the response.

Special tokens: those that a chat template writes are the only ones of its chat. In front of
anything else stands a beginning-of-sequence token if the tokenizer itself would put one there.

Windows: a window after the first starts with the last token of the window before it, as context
only. So every token is a target in exactly one window; just the very first token of a sequence has
nothing to be predicted from.

Importing this module loads neither torch nor transformers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from influence.documents import SEPARATOR, Document, Message
from influence.errors import InvalidInput, ModelUnavailable, QueryTooLong
from influence.rendering import Rendering, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TEXT = (-1, -1)


@dataclass(frozen=True)
class TokenSequence:
    """Tokens of one forward pass; the three lists have the same length T.

    Attributes:
        input_ids: Token ids.
        targets: ``targets[t]``: token t is predicted, from the tokens before it, and carries loss.
            ``targets[0]`` is always False.
        offsets: Characters ``[start, end)`` of each token, into `Document.text` for a document and
            into the response for a query; (-1, -1) for a token that is no text of it. Several
            tokens may share one character (the bytes of an emoji); an end-of-turn token has the
            empty span behind its content.
    """

    input_ids: list[int]
    targets: list[bool]
    offsets: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Passage:
    """A window of one document: one row of the index.

    Attributes:
        id: ``"{document_id}#{number}"``.
        document_id: Id of the document.
        number: 0, 1, … among the passages of its document.
        start: First character of `Document.text` that a target token covers.
        end: One past the last such character.
        tokens: What the model reads; offsets point into `Document.text`.
    """

    id: str
    document_id: str
    number: int
    start: int
    end: int
    tokens: TokenSequence


@dataclass(frozen=True)
class _Encoding:
    """A whole document in tokens; offsets into Document.text."""

    input_ids: list[int]
    offsets: list[tuple[int, int]]
    in_target_text: list[bool]  # the token overlaps a content that carries loss
    ends_turn: list[bool]  # the token is the special token directly behind such a content


def document_passages(
    document: Document, tokenizer: "PreTrainedTokenizerBase", *, max_length: int
) -> Iterator[Passage]:
    """Cut a document into passages of at most ``max_length`` tokens.

    Windows without a target (a long question, a document of one token and no
    beginning-of-sequence) are left out, so a document may have no passage at all.

    Raises:
        InvalidInput: The text is no valid Unicode, or the chat template refuses or rewrites it.
        ModelUnavailable: The tokenizer reports no character offsets.
    """
    if max_length < 2:
        raise ValueError(
            f"max_length is {max_length}; a passage needs 2 tokens, one of them to predict."
        )
    encoding = _encode(document, tokenizer, f"document {document.id!r}")
    targets = [a or b for a, b in zip(encoding.in_target_text, encoding.ends_turn, strict=True)]
    number = 0
    for first in range(0, len(targets) - 1, max_length - 1):
        window = slice(first, first + max_length)
        wanted = [False, *targets[window][1:]]
        offsets = encoding.offsets[window]
        spans = [span for span, target in zip(offsets, wanted, strict=True) if target]
        if not spans:
            continue
        yield Passage(
            id=f"{document.id}#{number}",
            document_id=document.id,
            number=number,
            start=min(start for start, _ in spans),
            end=max(end for _, end in spans),
            tokens=TokenSequence(encoding.input_ids[window], wanted, offsets),
        )
        number += 1


def query_tokens(
    prompt: str,
    response: str,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    span: tuple[int, int] | None = None,
    context: Sequence[Message] = (),
) -> TokenSequence:
    """A prompt and its response as the model read and wrote them, up to the response's last token.

    The rendering is that of a document of this prompt and response, so the ids are those of its
    passage without what the template puts behind the response (the end of the turn is no target of
    a query). Offsets point into ``response``.

    Args:
        prompt: What was asked.
        response: The answer to explain.
        tokenizer: The model's own.
        max_length: The model's context, in tokens.
        span: Characters [start, end) of the response to explain; all of it when None.
        context: What was said before the prompt; read, and never explained.

    Raises:
        InvalidInput: Empty prompt or response, a span outside the response, a span without a token,
            no valid Unicode, or a chat template that refuses or rewrites the texts.
        QueryTooLong: More than ``max_length`` tokens.
        ModelUnavailable: The tokenizer reports no character offsets.
    """
    for name, text in (("prompt", prompt), ("response", response)):
        if not text:
            raise InvalidInput(f"The {name} is empty; send the text that is to be attributed.")
    start, end = (0, len(response)) if span is None else span
    if not 0 <= start < end <= len(response):
        raise InvalidInput(
            f"The span {start} to {end} is not within the response of {len(response)} characters; "
            "send 0 <= start < end <= its length."
        )
    messages = (*context, Message("user", prompt), Message("assistant", response))
    encoding = _encode(Document(id="", messages=messages), tokenizer, "the query")
    length = max((t + 1 for t, inside in enumerate(encoding.in_target_text) if inside), default=0)
    if length > max_length:
        raise QueryTooLong(
            f"Prompt and response have {length} tokens and the model reads at most {max_length}; "
            "shorten one of them."
        )
    shown = sum(len(message.content) + len(SEPARATOR) for message in messages[:-1])
    targets: list[bool] = []
    offsets: list[tuple[int, int]] = []
    for t in range(length):
        # What the assistant said before is in a target text as well, one of the context.
        if encoding.in_target_text[t] and encoding.offsets[t][0] >= shown:
            first, last = (edge - shown for edge in encoding.offsets[t])
            offsets.append((first, last))
            targets.append(t > 0 and _overlap(first, last, start, end))
        else:
            offsets.append(NO_TEXT)
            targets.append(False)
    if not any(targets):
        raise InvalidInput(
            f"No token of the model that could be explained lies in {response[start:end]!r}; "
            "choose a longer span of the response."
        )
    return TokenSequence(encoding.input_ids[:length], targets, offsets)


def _encode(document: Document, tokenizer: "PreTrainedTokenizerBase", name: str) -> _Encoding:
    """Render and tokenise a whole document."""
    if not tokenizer.is_fast:
        raise ModelUnavailable(
            f"{type(tokenizer).__name__} is a slow tokenizer, which reports no character offsets; "
            "save the model with its fast tokenizer (tokenizer.json)."
        )
    rendered = render(document, tokenizer, name)
    encoded = tokenizer(
        rendered.text,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # a document longer than the model's context is cut into passages
    )
    ids: list[int] = encoded["input_ids"]  # type: ignore[assignment]
    encoding = _locate(ids, encoded["offset_mapping"], rendered, tokenizer)  # type: ignore[arg-type]
    if rendered.templated or not _adds_bos(tokenizer) or ids[:1] == [tokenizer.bos_token_id]:
        return encoding
    return _Encoding(
        input_ids=[tokenizer.bos_token_id, *ids],  # type: ignore[list-item]
        offsets=[NO_TEXT, *encoding.offsets],
        in_target_text=[False, *encoding.in_target_text],
        ends_turn=[False, *encoding.ends_turn],
    )


def _adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("", verbose=False)["input_ids"][:1] == [bos]  # type: ignore[index]


def _locate(
    ids: list[int],
    spans: list[tuple[int, int]],
    rendered: Rendering,
    tokenizer: "PreTrainedTokenizerBase",
) -> _Encoding:
    """Say of each token which content it belongs to, and where that is shown."""
    regions = [region for region in rendered.regions if region.start < region.end]
    turn_ends = {r.end: r for r in regions if r.carries_loss and rendered.templated}
    offsets: list[tuple[int, int]] = []
    in_target_text: list[bool] = []
    ends_turn: list[bool] = []
    current = 0
    for token_id, (start, end) in zip(ids, _fill_gaps(ids, spans, tokenizer), strict=True):
        while current < len(regions) and regions[current].end <= start:
            current += 1
        touched = []
        following = current
        while following < len(regions) and regions[following].start < max(end, start + 1):
            if _overlap(start, end, regions[following].start, regions[following].end):
                touched.append(regions[following])
            following += 1
        if touched:
            region = next((r for r in touched if r.carries_loss), touched[0])
            move = region.shown - region.start
            offsets.append((max(start, region.start) + move, min(end, region.end) + move))
            in_target_text.append(region.carries_loss)
            ends_turn.append(False)
            continue
        turn = turn_ends.get(start) if start < end else None
        is_end = turn is not None and _is_added(token_id, tokenizer)
        shown_end = turn.shown + turn.end - turn.start if turn is not None else -1
        offsets.append((shown_end, shown_end) if is_end else NO_TEXT)
        in_target_text.append(False)
        ends_turn.append(is_end)
    return _Encoding(ids, offsets, in_target_text, ends_turn)


def _fill_gaps(
    ids: list[int], spans: list[tuple[int, int]], tokenizer: "PreTrainedTokenizerBase"
) -> list[tuple[int, int]]:
    """Give the white space that some byte-level tokenizers cut off their offsets back to its token.

    A token of nothing but spaces would otherwise have no text, and never be a target.
    """
    filled: list[tuple[int, int]] = []
    covered = 0
    for token_id, (start, end) in zip(ids, spans, strict=True):
        if start > covered:
            token = str(tokenizer.convert_ids_to_tokens(token_id))
            own = len(token) - len(token.lstrip("Ġ")) if filled else start
            start = max(covered, start - own)
            if start > covered:
                filled[-1] = (filled[-1][0], start)
        filled.append((start, end))
        covered = max(covered, end)
    return filled


def _is_added(token_id: int, tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Special, or at least added to the vocabulary by hand, as some end-of-turn tokens are."""
    return token_id in tokenizer.all_special_ids or token_id in tokenizer.added_tokens_decoder


def _overlap(start: int, end: int, first: int, last: int) -> bool:
    """Whether [start, end) shares a character with [first, last), or is empty and within it."""
    return start < last and end > first if start < end else first <= start < last
