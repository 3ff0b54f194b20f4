"""Texts that are withheld, and the scores that stay."""

import pytest

from influence.errors import ListUnavailable
from service.hidden import Hidden
from service.schemas import AttributeRequest, DocumentResult

ASK = AttributeRequest(prompt="where is the king?", response="the king is north", top_k=50)


@pytest.fixture
def lists(tmp_path):
    """Write the two lists; empty ones where nothing is given."""
    blocked, patterns = tmp_path / "blocked", tmp_path / "patterns"

    def write(ids: str = "", expressions: str = "") -> Hidden:
        blocked.write_text(ids, encoding="utf-8")
        patterns.write_text(expressions, encoding="utf-8")
        return Hidden(blocked, patterns)

    return write


def scores(result):
    kept = {"rank", "document_id", "influence", "relative_influence", "confidence", "owner"}
    hits = [*result.proponents, *result.opponents]
    return [hit.model_dump(include=kept) for hit in hits], result.owners, result.query


def test_a_blocked_text_is_gone_and_every_score_stays(engine, lists):
    result = engine.attribute(ASK, request_id="r")
    blocked = result.proponents[0].document_id
    shown = lists(f"{blocked}\n\nanother id\n").in_result(result)
    assert scores(shown) == scores(result)
    for before, after in zip(result.proponents, shown.proponents, strict=True):
        if before.document_id == blocked:
            assert (after.text, after.title, after.url, after.withheld) == ("", None, None, True)
        else:
            assert after == before
    assert before.text
    assert blocked in {hit.document_id for hit in shown.proponents}


def test_a_blocked_document_has_no_words_and_no_description(engine, lists):
    found = lists("shelf/5\n").in_document(engine.document("shelf/5"))
    assert (found.text, found.title, found.url, found.metadata) == ("", None, None, {})
    assert found.withheld
    assert (found.owner, found.source) == ("Bruno", "upper")


def test_a_match_is_covered_as_long_as_it_is_so_that_offsets_hold(lists):
    text = "Write to ann@example.org or call +49 30 901820, Ann."
    document = DocumentResult(
        id="a", text=text, title="ann@example.org", source=None, owner=None, licence=None,
        url="https://x/ann@example.org", passages=(),
        metadata={"by": ["ann@example.org", {"again": "ann@example.org"}], "n": 3},
    )  # fmt: skip
    found = lists(expressions="[\\w.]+@[\\w.]+\n\\+\\d[\\d ]{6,}\n").in_document(document)
    assert found.text == f"Write to {'█' * 15} or call {'█' * 13}, Ann."
    assert len(found.text) == len(text)
    assert "ann@" not in found.model_dump_json()
    assert found.metadata["n"] == 3
    assert not found.withheld


def test_what_a_list_says_holds_from_the_next_answer_on(engine, lists):
    result = engine.attribute(ASK, request_id="r")
    hidden = lists()
    assert hidden.in_result(result) == result
    lists("".join(f"{hit.document_id}\n" for hit in result.proponents))
    assert all(hit.withheld for hit in hidden.in_result(result).proponents)


def test_without_lists_nothing_is_withheld(engine):
    result = engine.attribute(ASK, request_id="r")
    assert Hidden(None, None).in_result(result) is result
    document = engine.document("shelf/5")
    assert Hidden(None, None).in_document(document) == document


def test_a_list_that_is_gone_or_broken_shows_nothing(engine, lists, tmp_path):
    result = engine.attribute(ASK, request_id="r")
    with pytest.raises(ListUnavailable, match="no regular expression"):
        lists(expressions="fine\n(unclosed\n")
    with pytest.raises(ListUnavailable, match="cannot be read"):
        Hidden(tmp_path / "absent", None)
    hidden = lists("x\n")
    (tmp_path / "blocked").write_bytes(b"\xff\xfe")
    with pytest.raises(ListUnavailable, match="UTF-8"):
        hidden.in_result(result)
    (tmp_path / "blocked").unlink()
    with pytest.raises(ListUnavailable):
        hidden.in_result(result)
