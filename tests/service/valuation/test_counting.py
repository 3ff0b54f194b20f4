"""Counter-measures of a payout against plain loops over rows and answers."""

import random

import numpy as np
import pytest

from influence.errors import InvalidInput
from service.ledger.chain import unpack_totals
from service.ledger.record import attribution_entry, owners_of
from service.ledger.retention import erase_requests
from service.schemas import AttributeRequest
from service.valuation.counting import COSINE, JACCARD, Counting
from service.valuation.duplicates import find_duplicates
from service.valuation.rescoring import Recounted, asked_sum, vector_of
from service.valuation.statement import Terms, make_statement
from service.valuation.weighing import EqualKeys, Normalised

OCTOBER_US = 1_790_812_800_000_000
ASKED = [("who was king?", "the king of gold"), ("which river?", "north of the city is wine")]
KEYS = ["anna's", "anna's", "bruno's"]


def record(ledger, engine, asked, keys=None, *, version=None):
    for number, (prompt, response) in enumerate(asked):
        request = AttributeRequest(prompt=prompt, response=response, top_k=1, opponents=False)
        result = engine.attribute(request, request_id=f"r{number}")
        if version is not None:
            index = result.index.model_copy(update={"version": version})
            result = result.model_copy(update={"index": index})
        owners, names = owners_of(result, time_us=OCTOBER_US)
        entry = attribution_entry(
            request, result, owners, names, caller=keys[number] if keys else None,
            usage=1.0 + number, probability=1.0, policy="all", keep_text=True,
            salt=random.Random(number).randbytes(16), time_us=OCTOBER_US,
        )  # fmt: skip
        ledger.append([owners, entry])


def totals_by_owner(entries, last):
    names = next(e.content["names"] for e in entries.events("owners"))
    return [
        dict(zip(names, unpack_totals(e.totals, len(names)).tolist(), strict=True))
        for e in entries.read(1, last)
        if e.kind == "attribution"
    ]


def test_asked_again_the_totals_are_those_that_were_recorded(ledger, engine):
    record(ledger, engine, ASKED)
    again = totals_by_owner(Recounted(ledger, engine, Counting()), 3)
    for now, then in zip(again, totals_by_owner(ledger, 3), strict=True):
        # Owners' sums are float32 there and here, added up in another order.
        scale = max(abs(total) for total in then.values())
        assert now == pytest.approx(then, abs=1e-5 * scale)


@pytest.mark.parametrize(
    "counting",
    [Counting(norm_cap=0.9), Counting(relative=True), Counting(fold=True, norm_cap=1.0)],
)
def test_totals_under_a_counting_are_those_of_a_loop_over_passages(
    ledger, engine, counting, monkeypatch
):
    # Nothing in this index is so near; below this cosine the random texts fold into one another.
    monkeypatch.setattr("service.valuation.counting.COSINE", 0.05)
    record(ledger, engine, ASKED)
    reader = engine.reader
    near = find_duplicates(reader, jaccard=JACCARD, cosine=0.05)
    folded = {one.document_id for one in near}
    assert folded
    median = float(np.median(reader.norms))
    found = totals_by_owner(Recounted(ledger, engine, counting), 3)
    for (prompt, response), totals in zip(ASKED, found, strict=True):
        query = vector_of(engine, AttributeRequest(prompt=prompt, response=response))
        expected = dict.fromkeys(totals, 0.0)
        for row in range(len(reader)):
            norm = float(reader.norms[row])
            length = min(norm, (counting.norm_cap or np.inf) * median)
            cosine = float(reader.vectors([row])[0].astype(float) @ query) / np.linalg.norm(query)
            score = cosine if counting.relative else cosine * length * np.linalg.norm(query)
            if not (counting.fold and reader.passage(row).document_id in folded):
                expected[str(reader.row_owners[row])] += score
        scale = max(abs(total) for total in expected.values())
        assert totals == pytest.approx(expected, abs=1e-5 * scale)


def test_the_sum_of_what_was_asked_gives_each_owner_its_linear_total(ledger, engine):
    record(ledger, engine, ASKED)
    query = asked_sum(ledger, engine, 1, 3)
    reader = engine.reader
    scores = (reader.vectors(range(len(reader))) @ query) * reader.norms
    lines = make_statement(ledger, "2026-10", Terms(100, "shapley"))["lines"]
    for line in lines:
        mine = reader.row_owners == (line["owner"] or "")
        scale = np.abs(scores).sum()
        assert scores[mine].sum() == pytest.approx(line["worth"], abs=1e-6 * scale)


def test_every_counter_measure_stands_in_the_policy_and_the_statement_adds_up(ledger, engine):
    record(ledger, engine, ASKED)
    terms = Terms(10_000, "positive-share", fold_duplicates=True, norm_cap=2.0,
                  normalise_answers=True, equal_keys=True)  # fmt: skip
    made = make_statement(ledger, "2026-10", terms, engine=engine)
    for said in (f"from {JACCARD}", f"from {COSINE}", "2 times the median", "absolute values",
                 "keys weigh the same"):  # fmt: skip
        assert said in made["policy_text"]
    assert made["terms"]["norm_cap"] == 2.0
    cents = [int(line["earned"].replace(".", "")) for line in made["lines"]]
    assert sum(cents) == 10_000
    plain = make_statement(ledger, "2026-10", Terms(10_000, "positive-share"))
    assert "norm_cap" not in plain["terms"]  # as statements were before there were any


def test_answers_that_are_normalised_speak_equally_loud(ledger, owners, entry, totals):
    draw = random.Random(1)
    ledger.append([owners()])
    ledger.append([entry(f"r{i}", totals(draw)) for i in range(5)])
    ledger.append([entry("none", dict.fromkeys([None, "Anna", "Bruno", "Chloe"], 0.0))])
    *found, none = totals_by_owner(Normalised(ledger), 7)
    for now, then in zip(found, totals_by_owner(ledger, 6), strict=True):
        whole = sum(abs(total) for total in then.values())
        assert now == pytest.approx({name: total / whole for name, total in then.items()})
    assert set(none.values()) == {0.0}


def test_keys_weigh_the_same_and_all_together_what_they_did(ledger, owners, entry, totals):
    draw = random.Random(1)
    ledger.append([owners()])
    ledger.append(
        [entry(f"r{i}", totals(draw), caller=k, usage=1.0 + i) for i, k in enumerate(KEYS)]
    )
    weights = [e.weight for e in EqualKeys(ledger, ledger).read(2, 4)]
    assert weights == pytest.approx([1.0, 2.0, 3.0])  # 3 of 6 each: 1/3 and 2/3 of it, and all
    weights = [e.weight for e in EqualKeys(ledger, ledger).read(3, 4)]
    assert weights == pytest.approx([2.5, 2.5])


def test_what_cannot_be_asked_again_is_refused_by_its_entry(ledger, engine):
    record(ledger, engine, ASKED)
    erase_requests(ledger, ["r1"])
    terms = Terms(100, "shapley", relative=True)
    with pytest.raises(InvalidInput, match="--index"):
        make_statement(ledger, "2026-10", terms)
    with pytest.raises(InvalidInput, match="text of entry 3 was not kept"):
        make_statement(ledger, "2026-10", terms, engine=engine)


def test_an_answer_of_another_version_is_refused(ledger, engine):
    record(ledger, engine, ASKED, version="000009-0123456789ab")
    with pytest.raises(InvalidInput, match="version 000009-0123456789ab"):
        asked_sum(ledger, engine, 1, 3)


@pytest.mark.parametrize("cap", [0.0, -1.0, float("nan"), float("inf")])
def test_a_cap_that_is_none_is_refused(cap):
    with pytest.raises(InvalidInput, match="positive multiple"):
        Counting(norm_cap=cap)


def test_relative_influence_has_no_norm_to_cap():
    with pytest.raises(InvalidInput, match="not both"):
        Counting(norm_cap=2.0, relative=True)
