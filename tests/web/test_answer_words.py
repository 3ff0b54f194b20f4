"""Which words of the answer a document moved, shaded over the answer in the conversation."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

RESPONSE = "Many \U0001f30d people live there."
WORDS = ["Many", "\U0001f30d", "people", "live", "there."]
TOGGLE = "Words of the answer it moved"


def shaded(page: Page) -> dict[str, list[str]]:
    """What is shaded on the page, by sign and depth."""
    return page.evaluate(
        "Object.fromEntries([...CSS.highlights].filter(([name]) => name !== 'part')"
        ".map(([name, ranges]) => [name, [...ranges].map(String)]))"
    )


def opened(open_page: Any, width: int = 1280) -> Page:
    watched = open_page(width=width)
    watched.ask(response=RESPONSE)
    return watched.page


def test_a_toggle_shades_the_words_in_the_conversation_and_takes_the_shades_away(open_page):
    page = opened(open_page)
    toggle = page.locator(".proponents .card").first.get_by_role("button", name=TOGGLE)
    toggle.focus()
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-pressed", "true")
    # The stub gives a word as much as it is long: 4, 1, 6, 4 and 6 of 21 signs.
    expect(page.locator(".turn .moved")).to_contain_text("Egypt: People and Society")
    assert shaded(page) == {
        "for-3": ["Many", "live"],
        "for-1": ["\U0001f30d"],
        "for-4": ["people", "there."],
    }
    # In words too, for those who see no shades; the card does not show the answer a second time.
    said = page.locator(".card .moved").first
    expect(said).to_contain_text("Shaded in the answer. Most: people (+")
    expect(said.locator(".answer-text")).to_be_empty()
    assert page.locator(".answer").evaluate("node => node.querySelectorAll('mark').length") == 0
    page.keyboard.press("Enter")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".turn .moved")).to_be_hidden()
    assert shaded(page) == {}


def test_only_one_document_shades_the_answer_and_a_new_question_ends_it(open_page):
    page = opened(open_page)
    toggles = page.get_by_role("button", name=TOGGLE)
    toggles.first.click()
    expect(page.locator(".turn .moved")).to_contain_text("Egypt")
    page.locator(".opponents .words").first.click()
    expect(page.locator(".turn .moved")).to_contain_text("Canada")
    expect(toggles.first).to_have_attribute("aria-pressed", "false")
    assert shaded(page)["against-4"] == ["people", "there."]
    assert not [name for name in shaded(page) if name.startswith("for")]
    axe = Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in axe] == []
    page.get_by_role("button", name="Stop shading").click()
    expect(page.locator(".opponents .words").first).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".answer")).to_be_focused()
    toggles.first.click()
    expect(page.locator(".turn .moved")).to_be_visible()
    page.get_by_label("Response", exact=True).fill("Another one.")
    page.get_by_label("Response", exact=True).press("Control+Enter")
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn .moved:visible")).to_have_count(0)
    assert shaded(page) == {}


def test_where_the_answer_is_out_of_sight_the_card_shows_it_as_well(open_page):
    page = opened(open_page, width=360)
    card = page.locator(".proponents .card").first
    card.get_by_role("button", name=TOGGLE).click()
    expect(card.locator(".answer-text mark")).to_have_text(WORDS)
    expect(card.locator(".moved")).to_contain_text("Most: people (+")
    assert shaded(page)["for-4"] == ["people", "there."]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_browser_without_highlights_shows_the_answer_in_the_card(open_page):
    watched = open_page()
    watched.page.add_init_script("delete CSS.highlights; delete CSS.__proto__.highlights;")
    watched.page.reload()
    assert watched.page.evaluate("'highlights' in CSS") is False
    watched.ask(response=RESPONSE)
    card = watched.page.locator(".proponents .card").first
    card.get_by_role("button", name=TOGGLE).click()
    expect(card.locator(".answer-text mark")).to_have_text(WORDS)
    expect(watched.page.locator(".turn .moved")).to_be_hidden()
    assert watched.faults == []


def test_words_that_could_not_be_had_are_told_and_can_be_asked_for_again(open_page):
    watched = open_page()
    page = watched.page

    def no_parts(route: Route) -> None:
        explains = (route.request.post_data_json or {}).get("explain")
        route.abort("connectionrefused") if explains else route.continue_()

    page.route("**/attribute", no_parts)
    watched.ask(response=RESPONSE)
    card = page.locator(".proponents .card").first
    toggle = card.get_by_role("button", name=TOGGLE)
    toggle.click()
    expect(card.locator(".moved")).to_contain_text("The server could not be reached")
    expect(toggle).to_have_attribute("aria-pressed", "false")
    page.unroute("**/attribute")
    toggle.click()
    expect(card.locator(".moved")).to_contain_text("Most: people (+")
    expect(toggle).to_have_attribute("aria-pressed", "true")


def test_words_are_shaded_where_markdown_draws_them(open_page):
    """Every sign that is drawn is shaded in its place; what is not drawn is nowhere."""
    page = open_page().page
    source = (
        "# A *head*\n\nOne **bold** and `code`, \\*not\\* \U0001f30d.\n\n- two [site](https://a.example/)\n"
        "  1. deep\n\n> quoted\n> on\n\n```py\nprint(1)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    drawn = page.evaluate(
        """async (source) => {
          const { markdown } = await import("/static/common/markdown.js");
          const { placesOf } = await import("/static/page/selection.js");
          const body = document.createElement("div");
          body.append(...markdown(source));
          const parts = [...source].map((sign, start) => ({ start, end: start + 1, sign }));
          const places = placesOf(body, source, parts);
          const whole = placesOf(body, source, [{ start: 0, end: parts.length }]);
          return {
            wrong: places.filter(({ part, range }) => part.sign !== String(range)).length,
            signs: places.map(({ range }) => String(range)).join(""),
            whole: whole.map(({ range }) => String(range)).join(""),
            text: body.textContent,
          };
        }""",
        source,
    )
    assert drawn["wrong"] == 0
    assert drawn["signs"] == drawn["whole"] == drawn["text"]
    assert "One bold and code, *not* \U0001f30d." in drawn["text"]
