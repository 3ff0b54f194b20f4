"""The dashboard in a browser, over a real index and a real ledger with hostile names in both."""

import csv
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from api.app import create_app
from service.engine import Engine
from service.ledger.record import attribution_entry, owners_of
from service.ledger.recorded import Recording
from service.ledger.recorder import Recorder
from service.local import LocalAttributor
from service.schemas import AttributeRequest

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>"
RTL = "\N{RIGHT-TO-LEFT OVERRIDE}gnilioper"
START_US = 1_790_812_800_000_000  # 2026-10-01


def records() -> list[dict]:
    owners = (HOSTILE, RTL, "Ärger & Söhne 🙂")
    return [
        {
            "id": f"d/{number}",
            "title": f"{HOSTILE} {number}",
            "owner": owners[number % 3],
            "source": "upper" if number < 6 else "lower",
            "text": f"{HOSTILE} the king of the city {number} has gold and silver, ship {number}",
        }
        for number in range(12)
    ]


def record(engine: Engine, recording: Recording) -> None:
    for number in range(6):
        request = AttributeRequest(prompt="who?", response=f"the king of the city {number}")
        result = engine.attribute(request, request_id=f"r{number}")
        time_us = START_US + number * 86_400_000_000
        owners, names = owners_of(result, time_us=time_us)
        entry = attribution_entry(
            request,
            result,
            owners,
            names,
            caller=None,
            usage=1.0,
            probability=1.0,
            policy="all",
            keep_text=False,
            salt=bytes(16),
            time_us=time_us,
        )
        recording.ledger.append([owners, entry])


@pytest.fixture
def dashboard(build, new_llama, tokenizer, as_loaded, tmp_path) -> Iterator[str]:
    """Address of a server with an index and six answers on six days."""
    loaded = as_loaded(new_llama(num_hidden_layers=1), tokenizer)
    engine = Engine(build(records(), loaded), loaded, search_memory_bytes=2**28)
    recording = Recording(Recorder(str(tmp_path / "l.db"), tmp_path / "spool"))
    record(engine, recording)
    app = create_app(
        LocalAttributor(lambda: engine), recording=recording, index_dir=tmp_path / "index"
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join(timeout=30)


class Watched:
    """A page that remembers what went wrong in it and every host that it spoke to."""

    def __init__(self, browser: Browser, **settings) -> None:
        self.page: Page = browser.new_context(**settings).new_page()
        self.page.set_default_timeout(30_000)
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda m: m.type == "error" and self.faults.append(m.text))
        self.page.on("request", lambda r: self.hosts.add(r.url.split("/")[2]))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))

    def until_drawn(self) -> None:
        expect(self.page.locator("#view")).to_have_attribute("data-state", "answer")


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [one["id"] for one in found if one["impact"] in ("serious", "critical")]


def test_views_are_drawn_followed_filtered_and_taken_home(
    browser: Browser, dashboard: str, tmp_path: Path
):
    watched = Watched(browser, viewport={"width": 1280, "height": 900})
    page = watched.page
    page.goto(f"{dashboard}/dashboard")
    watched.until_drawn()
    board = page.locator('[data-table="owners"] tbody tr')
    expect(board).to_have_count(3)
    expect(page.locator('[data-table="owners"]')).to_contain_text(HOSTILE)  # as text
    # The library of the figures is large; what is waited for is that they come at all.
    expect(page.locator('[data-figure="lorenz"] svg').first).to_be_visible(timeout=90_000)
    assert page.locator("main script, main img").count() == 0
    assert serious(page) == []

    with page.expect_download() as download:
        page.get_by_role("button", name="Leaderboard as CSV").click()
    file = tmp_path / "owners.csv"
    download.value.save_as(file)
    with file.open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.reader(stream))) == 4

    page.get_by_role("link", name="Documents").click()
    watched.until_drawn()
    assert "view=documents" in page.url
    page.get_by_label("Source").fill("upper")
    page.get_by_label("Period").fill("2026-10")
    page.get_by_role("button", name="Show").click()
    expect(page.locator('[data-table="valuable"] tbody tr').first).to_be_visible()
    assert "source=upper" in page.url
    assert "period=2026-10" in page.url
    shown = page.locator('[data-table="valuable"] tbody tr td:first-child').all_inner_texts()
    assert all(int(name.removeprefix("d/")) < 6 for name in shown)

    page.locator('[data-table="valuable"] tbody a').first.click()
    expect(page.locator("pre.text")).to_contain_text(HOSTILE)
    page.go_back()
    expect(page.locator('[data-table="valuable"]')).to_be_visible()
    page.reload()  # the address says all of it
    watched.until_drawn()
    assert page.get_by_label("Source").input_value() == "upper"

    assert page.title() != "owned"
    assert watched.faults == []
    assert watched.hosts == {dashboard.removeprefix("http://")}


def test_what_cannot_be_drawn_says_why_and_can_be_tried_again(browser: Browser, dashboard: str):
    watched = Watched(browser, viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = watched.page
    page.goto(f"{dashboard}/dashboard?view=owners&period=2020")
    expect(page.get_by_role("alert")).to_contain_text("no attributions in 2020")
    page.get_by_label("Period").fill("2026")
    page.keyboard.press("Enter")
    watched.until_drawn()
    # A phone: the page itself does not scroll sideways, wide tables do within themselves.
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert serious(page) == []
