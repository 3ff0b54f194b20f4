import pytest

from demo.factbook import plain
from demo.names import proper_names
from demo.speeches import stands_alone


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("We signed a treaty with Siam, which was concluded in 1856.", ["Siam"]),
        ("He spoke of the Panama Canal and of tolls.", ["the Panama Canal"]),
        ("We imposed tariffs on Chinese goods.", []),  # the first half of a noun
        ("I urge the Congress and the Senate to act.", []),  # capitalised out of respect
        ("Under the Clayton and Bulwer treaty we are safe.", []),
        ("They passed by the fort in New Zealand.", ["New Zealand"]),
        ("The army held Juvenile Delinquency Act, at last.", ["the Juvenile Delinquency Act"]),
    ],
)
def test_proper_names_are_written_as_in_a_question(text, names):
    assert proper_names(text) == names


def test_a_paragraph_that_leans_on_the_one_before_is_left_out():
    body = (
        "treaty with Siam, concluded in 1856, is out of date in respect to many of its provisions, "
        "and the Department is considering its revision in whole or in part."
    )
    assert stands_alone(f"The existing {body}")
    assert not stands_alone(f"This existing {body}")
    assert not stands_alone(f"The existing {body.removesuffix('.')}")
    assert not stands_alone("Too short in 1856.")


def test_plain_text_has_no_tags_entities_or_notes():
    assert plain("the word <em>misir</em>, meaning &ldquo;fort&rdquo;") == (
        "the word misir, meaning “fort”"
    )
    assert plain("1,459 km<br><br><strong>note:</strong> shared") == "1,459 km"
    assert plain("total 12; note - of all") == "total 12"
