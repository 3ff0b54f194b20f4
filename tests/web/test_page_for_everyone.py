"""The page by keyboard and screen reader, at every width, and what its first view weighs."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from influence.errors import QueryTooLong, Unauthenticated
from service.schemas import Span

TOO_LONG = QueryTooLong("Prompt and response are 9,312 tokens. Shorten the response.")
NO_KEY = Unauthenticated("This needs an API key: send one.", key_given=False)


def test_the_keyboard_alone_is_enough(open_page, site):
    page = open_page().page
    press = page.keyboard.press

    def tab_to(locator, at_most):
        for _ in range(at_most):
            press("Tab")
            if locator.evaluate("node => node.getRootNode().activeElement === node"):
                return
        pytest.fail(f"{locator} is not within {at_most} stops")

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the most valuable data")).to_be_focused()
    tab_to(page.get_by_label("Prompt"), 5)
    page.keyboard.type("Who are you?")
    press("Tab")
    page.keyboard.type("A model of \U0001f30d words.")
    press("Control+Enter")
    expect(page.locator(".message")).to_be_visible()
    for _ in range(20):  # from the field back to the answer
        press("Shift+Tab")
        if page.locator(".answer").evaluate("node => document.activeElement === node"):
            break
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowRight", "Enter"):
        press(key)
    expect(page.locator(".scope")).to_contain_text("Only “model of”")
    site.wait_for_questions(2)
    assert site.asked[-1].span == Span(start=2, end=10)
    tab_to(page.get_by_role("button", name="Back to the whole answer"), 20)
    press("Enter")
    expect(page.locator(".scope")).to_be_hidden()
    expect(page.locator(".message")).to_be_visible()
    tab_to(page.get_by_role("button", name="Open the document").first, 20)
    press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_screen_reader_hears_the_verdict(open_page):
    watched = open_page()
    watched.ask()
    expect(watched.page.locator(".status[aria-live]")).to_contain_text("stands out")


@pytest.mark.parametrize("width", [360, 768, 1440, 2200])
def test_nothing_overflows(open_page, width):
    watched = open_page(width=width)
    watched.ask()
    expect(watched.page.locator(".proponents .card").first).to_be_visible()
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("state", ["empty", "working", "answer", "nothing", "error", "needs-key"])
def test_axe_finds_nothing(open_page, site, state):
    watched = open_page()
    if state == "nothing":
        site.nothing()
    if state == "error":
        site.refusal = TOO_LONG
    if state == "needs-key":
        site.refusal = NO_KEY
    if state == "working":
        site.hold.clear()
    if state != "empty":
        watched.ask()
    if state == "nothing":
        watched.page.get_by_text("Show the weak hits anyway").click()
    drawn = {"nothing": "answer", "needs-key": "error"}.get(state, state)
    expect(watched.page.locator(f".panel[data-state={drawn}]")).to_be_visible()
    watched.page.locator(".panel").scroll_into_view_if_needed()
    axe = Axe()
    light = axe.run(watched.page).response["violations"]
    watched.page.emulate_media(color_scheme="dark")
    dark = axe.run(watched.page, options={"runOnly": ["color-contrast"]}).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in light + dark] == []


def test_the_first_view_is_small_and_asks_no_other_host(open_page, site):
    watched = open_page()
    watched.page.wait_for_load_state("networkidle")
    sizes = watched.page.evaluate(
        "performance.getEntries().map((entry) => entry.encodedBodySize ?? 0)"
    )
    assert sum(sizes) < 150_000
    watched.ask()
    expect(watched.page.locator(".proponents .card").first).to_be_visible()
    assert all(url.startswith(site.address) for url in watched.requests)
    assert watched.faults == []
