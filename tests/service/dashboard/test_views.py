"""Every view against the answers that were recorded, counted the slow way."""

import csv
import io
from collections import defaultdict

import pyarrow.parquet as pq
import pytest

from influence.errors import InvalidInput, NotFound
from service.dashboard.dashboard import draw
from service.dashboard.figures import bars
from service.dashboard.page import to_html
from service.dashboard.sources import Sources
from service.dashboard.view import Column, Fact, Figure, Table, View
from service.hidden import Hidden
from service.ledger.feedback import Opinion, give
from service.valuation.report import valuations

PERIOD = "2026-10"


def table(view, name):
    return next(one for one in view.tables if one.name == name)


def test_the_leaderboard_has_the_numbers_of_valuations(sources, recorded):
    view = draw("owners", sources(period=PERIOD))
    board = table(view, "owners")
    lines = [dict(zip([c.name for c in board.columns], row, strict=True)) for row in board.rows]
    assert lines == valuations(recorded[0], PERIOD)["owners"]


def test_parts_of_the_trend_add_up_to_the_totals(sources, recorded):
    view = draw("owners", sources(period="2026-10-01..2026-10-06"))
    parts = defaultdict(float)
    for _, owner, total, _ in table(view, "trend").rows:
        parts[owner] += total
    # The same float64 terms in another order.
    totals = {row[0]: row[1] for row in table(view, "owners").rows}
    assert dict(parts) == pytest.approx(totals, rel=1e-9)


def test_documents_are_those_of_the_recorded_passages(sources, recorded):
    view = draw("documents", sources())
    helped, harmed, used = defaultdict(float), defaultdict(float), set()
    for weight, result in recorded[1]:
        for hits, worth in ((result.proponents, helped), (result.opponents, harmed)):
            for hit in hits[:5]:
                worth[hit.document_id] += weight * hit.influence
                used.add(hit.document_id)
    best = {row[0]: row[3] for row in table(view, "valuable").rows}
    assert best == pytest.approx(dict(helped), rel=1e-9)
    worst = [row[3] for row in table(view, "harmful").rows]
    assert worst == pytest.approx(sorted(harmed.values()), rel=1e-9)
    every = set(sources().index.document_ids())
    assert {row[0] for row in table(view, "unused").rows} == every - used


@pytest.mark.parametrize("name", ["owners", "answers"])
def test_a_view_that_knows_no_filter_of_documents_says_so(sources, name):
    (says,) = draw(name, sources(owner="Anna")).missing
    assert "over all of them" in says
    assert draw(name, sources()).missing == ()


def test_a_filter_leaves_documents_of_its_owner_and_source(sources):
    view = draw("documents", sources(owner="Anna", source="upper"))
    rows = [*table(view, "valuable").rows, *table(view, "harmful").rows]
    assert rows
    assert {row[2] for row in rows} == {"Anna"}
    assert all(int(row[0].removeprefix("shelf/")) < 18 for row in rows)


def test_coverage_counts_the_answers_that_stand_out(sources, recorded):
    view = draw("answers", sources())
    rows = table(view, "coverage").rows
    assert sum(row[1] for row in rows) == len(recorded[1])
    assert sum(row[2] for row in rows) == sum(r.query.stands_out for _, r in recorded[1])
    assert sum(row[2] for row in table(view, "scores").rows) == len(recorded[1])


def test_a_thumb_is_read_back(sources, recorded):
    opinion = Opinion("a", "r1", "shelf/1", "shelf/1#0", "down", "<b>no", 1_790_812_800_000_001)
    give(recorded[0], opinion)
    (row,) = table(draw("answers", sources(period=PERIOD)), "feedback").rows
    assert row[1:] == ("r1", "shelf/1", "shelf/1#0", "down", "<b>no")


def test_quality_has_the_text_beside_an_odd_document(sources, tiny):
    rows = table(draw("quality", sources()), "outliers").rows
    assert rows
    assert [row[3] for row in rows] == sorted((row[3] for row in rows), reverse=True)
    texts = {r["id"]: r.get("text") or f"{r['prompt']}\n\n{r['response']}" for r in tiny.records}
    assert all(row[4].rstrip("…") == texts[row[0]][:300] for row in rows)


def test_a_blocked_text_is_in_no_view(engine, recorded, sources, tmp_path):
    odd = table(draw("quality", sources()), "outliers").rows[0][0]
    blocked = tmp_path / "blocked.txt"
    blocked.write_text(f"{odd}\n")
    withheld = Sources(engine.reader, recorded[0], Hidden(blocked, None))
    rows = {row[0]: row[4] for row in table(draw("quality", withheld), "outliers").rows}
    assert rows[odd] is None
    page = draw("document", Sources(engine.reader, recorded[0], Hidden(blocked, None)), odd)
    assert page.text == ""


def test_one_document_and_one_owner(sources, recorded):
    page = draw("document", sources(), "long text")
    assert len(table(page, "passages").rows) > 1
    owner = draw("owner", sources(), "Anna")
    expected = valuations(recorded[0], "2026-10-01..2026-10-06")["owners"]
    assert owner.facts[0].value == next(o["total"] for o in expected if o["owner"] == "Anna")
    with pytest.raises(NotFound):
        draw("document", sources(), "nothing")
    with pytest.raises(NotFound):
        draw("owner", sources(), "Nobody")
    with pytest.raises(InvalidInput):
        draw("owner", sources())


def test_files_have_every_digit(sources):
    board = table(draw("owners", sources()), "owners")
    read = list(csv.reader(io.StringIO(board.to_csv().decode())))
    assert [float(row[1]) for row in read[1:]] == [row[1] for row in board.rows]
    columns = pq.read_table(io.BytesIO(board.to_parquet())).to_pydict()
    assert list(columns) == [column.name for column in board.columns]
    assert columns["total"] == [row[1] for row in board.rows]
    assert columns["owner"] == [row[0] for row in board.rows]


def test_a_period_without_answers_says_so(sources):
    with pytest.raises(InvalidInput, match="no attributions"):
        draw("owners", sources(period="2020"))
    with pytest.raises(InvalidInput, match="no period"):
        draw("answers", sources(period="soon"))
    assert draw("answers", sources(period="2020")).facts[1].value is None


def test_without_a_ledger_or_an_index_the_rest_is_there(engine, recorded):
    with pytest.raises(NotFound, match="WHENCE_LEDGER_URL"):
        draw("owners", Sources(engine.reader, None))
    with pytest.raises(NotFound, match="no index"):
        draw("quality", Sources(None, recorded[0]))
    assert draw("documents", Sources(None, recorded[0])).missing
    assert draw("owner", Sources(None, recorded[0]), "Anna").missing
    assert draw("document", Sources(engine.reader, None), "long text").text


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (3300.4552179522143, "number", "3,300.5"),
        (-0.00012345678, "number", "-0.000123"),
        (1255.0, "number", "1,255"),
        (0.04332887945737, "share", "4.3\N{NO-BREAK SPACE}%"),
        (12345, "count", "12,345"),
    ],
)
def test_a_report_rounds_for_people_and_has_every_digit_behind(tmp_path, value, kind, shown):
    library = tmp_path / "plotly.min.js"
    library.write_text("")
    view = View("v", "", (Fact("f", value, kind, ""),), (), ())
    page = to_html("t", "", [view], library=library)
    assert f'<data value="{value}" title="{value}">{shown}</data>' in page


def test_a_report_holds_hostile_names_as_text(tmp_path):
    hostile = "</script><script>alert(1)</script>"
    bar = Figure("f", hostile, hostile, bars([hostile], [1.0], unit="nats"))
    rows = Table("t", hostile, hostile, (Column("c", hostile, "text"),), ((hostile,),))
    library = tmp_path / "plotly.min.js"
    library.write_text("/* the library */")
    view = View(hostile, hostile, (Fact(hostile, hostile, "text", hostile),), (bar,), (rows,))
    page = to_html(hostile, hostile, [view], library=library)
    assert page.count("<script>") == page.count("</script>") == 2  # the library and its calls
    assert "alert(1)" in page
