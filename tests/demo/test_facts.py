import pytest

from demo.facts import FactIndex, figures, stretch


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("39,187,155 people", {"39187155"}),
        ("in 1856 and 2023", set()),  # years
        ("$20,929,819.81, and more", {"20929819.81"}),
        ("84.2 years", {"84.2years"}),
        ("84.2", set()),
        ("12.3% of 456", {"12.3%"}),
        ("1,856 km", {"1856"}),
        ("3 km", set()),
        ("22.620 million", {"22.620"}),
    ],
)
def test_figures_are_long_numbers_or_shorter_ones_with_a_unit(text, expected):
    assert figures(text) == expected


def test_a_figure_of_one_record_names_it(records):
    found = FactIndex(records).repeated("How many?", "About 20,014 I think.")
    assert found == {"town-borra": {"20014"}}


def test_what_several_records_share_names_none(records):
    shared = [
        type(record)(**{**record.__dict__, "answer": "The very same 77,777 in every record here."})
        for record in records[:2]
    ]
    assert FactIndex(shared).repeated("?", "The very same 77,777 in every record here.") == {}


def test_a_phrase_counts_unless_the_question_holds_most_of_it(records):
    index = FactIndex(records)
    answer = "Surely 40,000,000 near the Cusp river"
    phrase = {"town-cusp": {"people of cusp 30021 near the"}}
    assert (
        index.repeated("?", "The people of Cusp: 30,021 near the sea")["town-cusp"]
        >= phrase["town-cusp"]
    )
    assert index.repeated("?", answer) == {}
    asked = "What of the people of Cusp near the river?"
    assert "town-cusp" not in index.repeated(asked, "the people of Cusp near the river")


def test_the_stretch_that_repeats_a_fact_is_found_with_its_characters():
    answer = "It is said: Total 1,944,167 people, who live along the great river Nile, and and and."
    start, end = stretch(answer, {"live along the great river nile", "1944167"})
    assert answer[start:end] == "1,944,167 people, who live along the great river Nile"
    with pytest.raises(ValueError, match="holds none"):
        stretch(answer, {"another fact of six words here"})
