"""Text of an answer while it is written: nothing is told that later tokens could still change.

A token may be half a character (the bytes of an emoji), and the last characters may be how a text
begins that ends the answer. Both are held back until it is clear; what was told is never taken
back.
"""

from collections.abc import Callable, Sequence

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Writing:
    """The text of an answer, told in pieces.

    Args:
        decode: Text of token ids, special ones left out.
        stops: Texts before which the answer ends.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = stops
        self._ids: list[int] = []
        self._told = ""
        self.stopped = False

    @property
    def tokens(self) -> int:
        """How many were written, the last one included that ended it."""
        return len(self._ids)

    def add(self, token: int) -> str:
        """Take the next token; what can be told now."""
        self._ids.append(token)
        return self._tell(self._decode(self._ids), ended=False)

    def end(self) -> str:
        """What was held back, since nothing follows."""
        return self._tell(self._decode(self._ids), ended=True)

    def _tell(self, text: str, *, ended: bool) -> str:
        if self.stopped:
            return ""
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            text = text[: min(found)]
        elif not ended:
            text = text.rstrip(_UNFINISHED)
            text = text[: len(text) - max((_begun(text, stop) for stop in self._stops), default=0)]
        # Some decoders change what they wrote before; then it is told when it is settled.
        if not text.startswith(self._told) and not ended:
            return ""
        new = text[len(self._told) :]
        self._told = text
        return new


def _begun(text: str, stop: str) -> int:
    """Characters at the end of a text that a stop may have begun with."""
    return next(
        (length for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length])), 0
    )
