"""Statements: they add up, follow from the ledger alone, and pay nothing twice."""

import random

import numpy as np
import pytest

from influence.errors import InvalidInput, NotFound
from service.valuation.aliases import add_alias
from service.valuation.page import to_html
from service.valuation.report import totals_of, valuations
from service.valuation.seen import owners_seen, payouts_seen, valuations_seen
from service.valuation.statement import Terms, make_statement, record_statement, to_csv, to_json

DAY_US = 86_400 * 10**6
NOVEMBER_US = 1_793_491_200_000_000
LATER_US = NOVEMBER_US + 400 * DAY_US
SHAPLEY = Terms(100_000, "shapley")


@pytest.fixture
def month(ledger, owners, entry):
    """700 answers in October 2026: more than there are groups of the bootstrap."""
    draw = random.Random(3)
    names = (None, "Anna", "Bruno", "Chloe")
    rows = [{name: draw.gauss(i, 2) for i, name in enumerate(names)} for _ in range(700)]
    ledger.append([owners()])
    ledger.append([entry(f"q{i}", row, usage=1 + i % 3) for i, row in enumerate(rows)])
    ledger.rows = np.array([[row[name] for name in names] for row in rows])
    ledger.usage = 1 + np.arange(700) % 3
    return ledger


def cents(amount: str) -> int:
    return int(amount.replace(".", ""))


def test_totals_are_the_sums_of_what_was_recorded(month):
    totals = totals_of(month, "2026-10")
    assert totals.owners == ("", "Anna", "Bruno", "Chloe")
    # The same numbers added in another order: float64 rounding of 700 terms.
    np.testing.assert_allclose(totals.total("linear"), month.usage @ month.rows, rtol=1e-12)
    clipped = np.maximum(month.rows, 0)
    whole = clipped.sum(axis=1, keepdims=True)
    shares = clipped / np.where(whole > 0, whole, 1)
    np.testing.assert_allclose(totals.total("positive-share"), month.usage @ shares, rtol=1e-12)
    assert totals.weight == month.usage.sum()


def test_intervals_are_as_wide_as_theory_says(month):
    chloe = next(o for o in valuations(month, "2026-10")["owners"] if o["owner"] == "Chloe")
    values = month.rows[:, 3] * month.usage
    expected = 2 * 1.96 * np.sqrt(len(values)) * values.std()
    # A bootstrap over 500 groups in 1,000 draws: its width is off by a few percent; 15 % is 3 σ.
    assert chloe["high"] - chloe["low"] == pytest.approx(expected, rel=0.15)
    assert chloe["low"] < chloe["total"] < chloe["high"]


@pytest.mark.parametrize("policy", ["shapley", "positive-share", "flat"])
def test_a_statement_adds_up_to_the_pool_and_is_the_same_bytes_again(month, policy):
    terms = Terms(100_000, policy, floor=1_000, min_payment=2_000)
    statement = make_statement(month, "2026-10", terms)
    total = sum(cents(line["earned"]) for line in statement["lines"])
    assert total + cents(statement["undistributed"]) == 100_000
    assert statement["ledger"]["hash"] == month.head().hash.hex()
    again = make_statement(month, "2026-10", terms)
    for render in (to_json, to_csv, to_html):
        assert render(statement) == render(again)


def test_a_recorded_statement_is_given_again_and_nothing_it_covers_is_paid_twice(month):
    statement = make_statement(month, "2026-10", SHAPLEY)
    record_statement(month, statement, now_us=LATER_US)
    assert to_json(make_statement(month, "2026-10", SHAPLEY)) == to_json(statement)
    for period, terms in [("2026-10", Terms(1, "flat")), ("2026", SHAPLEY)]:
        with pytest.raises(InvalidInput, match="paid already"):
            make_statement(month, period, terms)


def test_a_period_that_has_not_ended_is_not_recorded(month):
    statement = make_statement(month, "2026-10", SHAPLEY)
    with pytest.raises(InvalidInput, match="has not ended"):
        record_statement(month, statement, now_us=NOVEMBER_US - 1)


@pytest.mark.parametrize("period", ["2026-09", "2030"])
def test_a_period_without_entries_is_refused(month, period):
    with pytest.raises(InvalidInput, match="no attributions"):
        make_statement(month, period, SHAPLEY)


@pytest.mark.parametrize(
    "period", ["", "2026-13", "october", "2026-10-09..2026-10-01", "2026-10-01"]
)
def test_what_is_no_period_is_refused(month, period):
    with pytest.raises(InvalidInput, match="no period"):
        make_statement(month, period, SHAPLEY)


def test_what_is_too_little_to_pay_is_carried_to_the_next_statement_even_of_who_has_left(
    ledger, owners, entry
):
    small = {None: 0.0, "Anna": 99.0, "Bruno": 1.0, "Chloe": 0.0}
    ledger.append([owners(), entry("a", small)])
    terms = Terms(10_000, "shapley", min_payment=500)
    first = make_statement(ledger, "2026-10", terms)
    by = {line["owner"]: line for line in first["lines"]}
    assert (by["Bruno"]["paid"], by["Bruno"]["carried_forward"]) == ("0.00", "1.00")
    record_statement(ledger, first, now_us=LATER_US - 300 * DAY_US)
    left = owners(("", "Anna"))
    later = entry("b", {None: 0.0, "Anna": 1.0}, owners=left, time_us=LATER_US)
    ledger.append([left, later])
    second = make_statement(ledger, "2027", Terms(100, "shapley", min_payment=1))
    by = {line["owner"]: line for line in second["lines"]}
    assert (by["Bruno"]["brought_forward"], by["Bruno"]["paid"]) == ("1.00", "1.00")
    assert not by["Bruno"]["in_newest_index"]


def test_a_rename_moves_everything_and_a_sale_what_comes_after_it(ledger, owners, entry):
    row = {None: 0.0, "Anna": 1.0, "Bruno": 2.0, "Chloe": 4.0}
    start = owners().time_us
    ledger.append([owners(), entry("a", row), entry("b", row, time_us=start + 5 * DAY_US)])
    add_alias(ledger, "Anna", "Anne")
    add_alias(ledger, "Chloe", "Bruno", since_us=start + 3 * DAY_US)
    found = totals_of(ledger, "2026-10")
    assert dict(zip(found.owners, found.total("linear").tolist(), strict=True)) == {
        "": 0.0,
        "Anne": 2.0,
        "Bruno": 8.0,
        "Chloe": 4.0,
    }
    add_alias(ledger, "Anne", "Anna")  # and back: a circle ends where it was closed
    assert "Anna" in totals_of(ledger, "2026-10").owners


def test_merged_owners_are_clipped_together(ledger, owners, entry):
    row = {None: 0.0, "Anna": 3.0, "Bruno": -2.0, "Chloe": 1.0}
    ledger.append([owners(), entry("a", row)])
    add_alias(ledger, "Bruno", "Anna")
    found = totals_of(ledger, "2026-10")
    shares = dict(zip(found.owners, found.total("positive-share").tolist(), strict=True))
    assert shares == {"": 0.0, "Anna": 0.5, "Chloe": 0.5}


def test_an_alias_of_an_unknown_owner_is_refused(month):
    with pytest.raises(NotFound, match="no owner 'Dora'"):
        add_alias(month, "Dora", "Anna")
    with pytest.raises(InvalidInput, match="two different names"):
        add_alias(month, "Anna", "Anna")


def test_a_pool_with_nobody_of_worth_is_refused(ledger, owners, entry):
    ledger.append([owners(), entry("a", {None: -1.0, "Anna": -1.0, "Bruno": 0.0, "Chloe": -3.0})])
    with pytest.raises(InvalidInput, match="Nobody has positive worth"):
        make_statement(ledger, "2026-10", SHAPLEY)


def test_a_cap_needs_the_number_of_documents_and_holds(month):
    terms = Terms(100_000, "shapley", cap_per_document=1_000)
    with pytest.raises(InvalidInput, match="--index"):
        make_statement(month, "2026-10", terms)
    made = make_statement(month, "2026-10", terms, documents={"Anna": 30, "Bruno": 20, "Chloe": 10})
    by = {line["owner"]: cents(line["earned"]) for line in made["lines"]}
    assert by["Chloe"] == 10_000
    assert by["Bruno"] == 20_000
    assert sum(by.values()) + cents(made["undistributed"]) == 100_000


def test_an_owner_sees_its_own_lines_and_none_of_the_others(month):
    record_statement(month, make_statement(month, "2026-10", SHAPLEY), now_us=LATER_US)
    add_alias(month, "Anna", "Anne")
    own = frozenset({"Anna"})
    assert owners_seen(month, own) == {"owners": ["Anne"]}
    assert [o["owner"] for o in valuations_seen(month, "2026-10", own)["owners"]] == ["Anne"]
    (statement,) = payouts_seen(month, own)["payouts"]
    assert [line["owner"] for line in statement["lines"]] == ["Anna"]
    told = repr([owners_seen(month, own), valuations_seen(month, "2026-10", own), statement])
    assert "Bruno" not in told
    assert "Chloe" not in told


def test_a_name_is_never_markup_nor_a_formula(ledger, owners, entry):
    nasty = owners(("", "=1+1", "<script>"))
    ledger.append([nasty, entry("a", {None: 0.0, "=1+1": 1.0, "<script>": 2.0}, owners=nasty)])
    statement = make_statement(ledger, "2026-10", SHAPLEY)
    assert "<script>" not in to_html(statement)
    assert "'=1+1" in to_csv(statement)


def test_an_owner_whose_documents_have_gone_is_paid_for_what_they_answered_before(
    ledger, owners, entry
):
    row = {None: 0.0, "Anna": 1.0, "Bruno": 3.0, "Chloe": 0.0}
    left = owners(("", "Anna"))
    after = entry("b", {None: 0.0, "Anna": 1.0}, owners=left, time_us=owners().time_us + DAY_US)
    ledger.append([owners(), entry("a", row), left, after])
    by = {o["owner"]: o for o in make_statement(ledger, "2026-10", Terms(500, "shapley"))["lines"]}
    assert (by["Bruno"]["paid"], by["Bruno"]["in_newest_index"]) == ("3.00", False)
    assert (by["Anna"]["paid"], by["Anna"]["in_newest_index"]) == ("2.00", True)


def test_a_policy_that_changes_within_a_month_pays_every_answer_once(ledger, owners, entry):
    start = owners().time_us
    rows = [
        (0, {None: 0.0, "Anna": 1.0, "Bruno": 3.0, "Chloe": 0.0}),
        (20, {None: 0.0, "Anna": 3.0, "Bruno": 1.0, "Chloe": 0.0}),
    ]
    ledger.append([owners()])
    ledger.append([entry(f"d{d}", row, time_us=start + d * DAY_US) for d, row in rows])
    halves = [("2026-10-01..2026-10-14", SHAPLEY), ("2026-10-15..2026-10-31", Terms(400, "flat"))]
    made = [make_statement(ledger, period, terms) for period, terms in halves]
    for statement in made:
        record_statement(ledger, statement, now_us=LATER_US)
    first, second = (statement["ledger"] for statement in made)
    assert first["last"] + 1 == second["first"]
    assert sum(statement["answers"]["entries"] for statement in made) == 2
    for period in ("2026-10", "2026-10-01..2026-10-21", "2026-10-20..2026-11-02"):
        with pytest.raises(InvalidInput, match="paid already"):
            make_statement(ledger, period, SHAPLEY)


def test_an_answer_that_arrives_after_its_month_was_paid_counts_in_the_next(month, entry):
    """Its clock went back, or its spool was long away from the database."""
    record_statement(month, make_statement(month, "2026-10", SHAPLEY), now_us=NOVEMBER_US + 1)
    row = {None: 0.0, "Anna": 1.0, "Bruno": 0.0, "Chloe": 0.0}
    month.append([entry("late", row, time_us=NOVEMBER_US - DAY_US)])
    assert len(payouts_seen(month, None)["payouts"]) == 1
    november = make_statement(month, "2026-11", Terms(100, "shapley"))
    assert november["answers"]["entries"] == 1
    assert {line["owner"]: line["paid"] for line in november["lines"]}["Anna"] == "1.00"


def test_worth_that_is_negative_as_a_whole_pays_those_above_zero(ledger, owners, entry):
    ledger.append([owners(), entry("a", {None: -9.0, "Anna": 1.0, "Bruno": -5.0, "Chloe": 0.0})])
    by = {o["owner"]: o for o in make_statement(ledger, "2026-10", Terms(100, "shapley"))["lines"]}
    assert {name: by[name]["paid"] for name in by} == {
        None: "0.00",
        "Anna": "1.00",
        "Bruno": "0.00",
        "Chloe": "0.00",
    }


def test_an_owner_that_is_unknown_is_in_no_answer_and_no_statement(month):
    stranger = frozenset({"Dora"})
    record_statement(month, make_statement(month, "2026-10", SHAPLEY), now_us=LATER_US)
    assert owners_seen(month, stranger) == {"owners": []}
    assert valuations_seen(month, "2026-10", stranger)["owners"] == []
    (statement,) = payouts_seen(month, stranger)["payouts"]
    assert statement["lines"] == []
