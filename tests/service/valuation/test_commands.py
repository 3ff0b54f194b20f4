"""`whence value`, `game` and `payout` on a ledger of real answers."""

import json
import random

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from service.ledger.ledger import Ledger
from service.ledger.record import attribution_entry, owners_of
from service.schemas import AttributeRequest
from service.valuation.report import totals_of

OCTOBER_US = 1_790_812_800_000_000
ASKED = [("who was king?", "the king of gold"), ("which river?", "north of the city is wine")]


@pytest.fixture(scope="module")
def url(engine, tmp_path_factory):
    """A ledger with the texts of two answers, of different weights."""
    path = str(tmp_path_factory.mktemp("asked") / "ledger.db")
    ledger = Ledger(path, create=True)
    for number, (prompt, response) in enumerate(ASKED):
        request = AttributeRequest(prompt=prompt, response=response, top_k=1, opponents=False)
        result = engine.attribute(request, request_id=f"r{number}")
        owners, names = owners_of(result, time_us=OCTOBER_US)
        entry = attribution_entry(
            request, result, owners, names, caller=None, usage=1.0 + number, probability=1.0,
            policy="all", keep_text=True, salt=random.Random(number).randbytes(16),
            time_us=OCTOBER_US,
        )  # fmt: skip
        ledger.append([owners, entry])
    ledger.close()
    return path


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def lines(done):
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("by", ["owner", "source"])
def test_totals_of_a_period_are_sums_over_its_documents_and_those_of_the_ledger(
    url, tiny, engine, by
):
    asked = ("value", tiny.index_dir, "--model", tiny.model_dir, "--ledger", url,
             "--period", "2026-10", "--device", "cpu")  # fmt: skip
    documents = lines(run(*asked))
    assert [d["document_id"] for d in documents] != []
    expected: dict[str | None, float] = {}
    for one in documents:
        expected[one[by]] = expected.get(one[by], 0.0) + one["influence"]
    found = {line["name"]: line["influence"] for line in lines(run(*asked, "--by", by))}
    assert found == pytest.approx(expected)
    assert set(found) == ({"Anna", "Bruno", "Chloe", None} if by == "owner" else
                          {"upper", "lower", None})  # fmt: skip
    if by == "owner":
        ledger = Ledger(url)
        totals = totals_of(ledger, "2026-10")
        ledger.close()
        recorded = dict(zip(totals.owners, totals.total("linear").tolist(), strict=True))
        # The recorded ones are products of float32 sums.
        scale = sum(abs(one["influence"]) for one in documents)
        for name, total in recorded.items():
            assert found[name or None] == pytest.approx(total, abs=1e-6 * scale)


@pytest.mark.parametrize("given", [(), ("--ledger", "x.db"), ("--period", "2026-10")])
def test_what_is_to_be_valued_must_be_said(tiny, given):
    done = run("value", tiny.index_dir, *given)
    assert done.exit_code == 2
    assert "--validation" in done.output


def test_a_payout_with_every_counter_measure_is_the_same_bytes_again(url, tiny, tmp_path):
    command = ("payout", "--ledger", url, "--period", "2026-10", "--pool", "1000", "--policy",
               "positive-share", "--fold-duplicates", "--norm-cap", "2", "--normalise-answers",
               "--equal-keys", "--cap-per-document", "50", "--index", tiny.index_dir, "--model",
               tiny.model_dir, "--out", tmp_path)  # fmt: skip
    first, second = run(*command), run(*command)
    assert first.exit_code == 0, first.output
    assert first.stdout == second.stdout
    statement = json.loads(first.stdout)
    assert "near-duplicate" in statement["policy_text"]
    page = (tmp_path / "statement.html").read_text()
    assert statement["policy_text"].split(".")[1].strip() in page
    cents = [round(float(line["earned"]) * 100) for line in statement["lines"]]
    assert sum(cents) + round(float(statement["undistributed"]) * 100) == 100_000


def test_the_game_is_told_with_the_bounds_of_its_errors(url):
    done = run("game", "--ledger", url, "--period", "2026-10", "--orders", "50")
    (found,) = lines(done)
    assert {line["owner"] for line in found["owners"]} == {"Anna", "Bruno", "Chloe", None}
    assert all(np.isfinite(line["shapley_error"]) for line in found["owners"])
    assert found["error_confidence"] == 0.95
