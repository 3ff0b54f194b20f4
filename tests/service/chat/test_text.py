"""What is told of an answer while it is written, against the whole of it."""

from hypothesis import given
from hypothesis import strategies as st

from service.chat.text import Writing

TEXTS = st.text(alphabet="abc\N{GRINNING FACE}é ", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=3), max_size=3)


def decode(tokens: list[int]) -> str:
    """A token is a byte here, so that a character comes in up to four of them."""
    return bytes(tokens).decode("utf-8", "replace")


def told(text: str, stops: list[str]) -> tuple[list[str], Writing]:
    writing = Writing(decode, stops)
    pieces = []
    for token in text.encode():
        pieces.append(writing.add(token))
        if writing.stopped:
            break
    return [*pieces, writing.end()], writing


def before_first_stop(text: str, stops: list[str]) -> str:
    return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]


@given(TEXTS, STOPS)
def test_the_pieces_are_the_text_before_its_first_stop(text, stops):
    pieces, writing = told(text, stops)
    # What ends the answer is the stop that is complete first; one that began earlier and is
    # complete only with a later token has not been seen by then.
    seen = decode(list(text.encode())[: writing.tokens])
    assert "".join(pieces) == before_first_stop(seen, stops)
    assert writing.stopped == any(stop in text for stop in stops)


@given(TEXTS)
def test_no_half_of_a_character_is_told(text):
    pieces, _ = told(text, [])
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_an_answer_that_ends_in_half_a_character_says_so_at_the_end():
    writing = Writing(decode, [])
    assert writing.add("é".encode()[0]) == ""
    assert writing.end() == "\N{REPLACEMENT CHARACTER}"


def test_what_may_begin_a_stop_is_held_back_until_it_is_clear():
    writing = Writing(decode, ["abc"])
    assert [writing.add(byte) for byte in b"xabdab"] == ["x", "", "", "abd", "", ""]
    assert writing.end() == "ab"
