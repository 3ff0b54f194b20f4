"""The conversation in a real browser: parts of an answer, comparisons, edits, links."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from service.schemas import Span

RESPONSE = "About \U0001f30d 111,247,248 people.\nMost near the Nile."


@pytest.fixture
def answered(open_page):
    """A page with one answer, attributed."""
    watched = open_page()
    watched.ask(response=RESPONSE)
    expect(watched.page.locator(".proponents .card").first).to_be_visible()
    return watched


def test_a_part_that_is_selected_is_attributed_alone(answered, site):
    page = answered.page
    x, y = page.evaluate(
        """() => {
          const text = document.querySelector(".answer p").firstChild;
          const range = document.createRange();
          range.setStart(text, text.data.indexOf("Nile"));
          range.setEnd(text, text.data.indexOf("Nile") + 4);
          const { x, y, width, height } = range.getBoundingClientRect();
          return [x + width / 2, y + height / 2];
        }"""
    )
    page.mouse.dblclick(x, y)
    expect(page.locator(".part span")).to_have_text("“Nile”")
    page.get_by_role("button", name="Attribute this part").click()
    expect(page.locator(".scope")).to_contain_text("Only “Nile”")
    site.wait_for_questions(2)
    start = RESPONSE.index("Nile")  # code points, as the server counts; a browser counts one more
    assert site.asked[-1].span == Span(start=start, end=start + 4)
    assert page.evaluate("[...CSS.highlights.get('part')].map(String)") == ["Nile"]
    page.get_by_role("button", name="Back to the whole answer").click()
    site.wait_for_questions(3)
    assert site.asked[-1].span is None
    expect(page.locator(".scope")).to_be_hidden()
    assert page.evaluate("CSS.highlights.get('part').size") == 0
    assert answered.faults == []


def test_two_answers_are_compared(answered, site):
    page = answered.page
    answered.ask(response="About 38,000,000.")
    expect(page.locator(".turn")).to_have_count(2)
    page.get_by_role("button", name="Compare").last.click()
    field = page.get_by_label("Rather than")
    field.fill("About 38,000,000.")
    page.locator(".inline .primary").click()
    assert field.evaluate("node => node.validationMessage").startswith("This is the answer itself")
    page.get_by_label("Another answer").select_option(RESPONSE)
    axe = Axe().run(page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in axe] == []
    page.locator(".inline .primary").click()
    expect(page.locator(".scope")).to_contain_text(
        "Why “About 38,000,000.” rather than “About \U0001f30d 111,247,248 people."
    )
    site.wait_for_questions(3)
    asked = site.asked[-1]
    assert (asked.measurement, asked.response, asked.alternative) == (
        "contrast",
        "About 38,000,000.",
        RESPONSE,
    )


def test_an_edited_answer_is_attributed_again(answered, site):
    page = answered.page
    page.get_by_role("button", name="Edit").click()
    field = page.get_by_label("The answer, edited")
    expect(field).to_be_focused()
    field.fill("About 40 million.")
    page.get_by_role("button", name="Attribute the edited answer").click()
    expect(page.locator(".answer")).to_have_text("About 40 million.")
    expect(page.get_by_text("edited", exact=True)).to_be_visible()
    site.wait_for_questions(2)
    assert site.asked[-1].response == "About 40 million."


def test_a_link_leads_back_to_the_part_that_was_attributed(answered, open_page, site):
    page = answered.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy link").click()
    expect(page.locator(".share-link")).to_have_text("Copied")
    address = page.evaluate("navigator.clipboard.readText()")
    assert address.startswith(f"{site.address}/#attribution=")
    at = address.removeprefix(f"{site.address}/") + "&span=8-19"
    again = open_page(at=at).page
    expect(again.locator(".scope")).to_contain_text("Only “111,247,248”")
    expect(again.locator(".turn .said")).to_have_text("How many people live in Canada?")
    site.wait_for_questions(2)
    assert site.asked[-1].response == RESPONSE
    assert site.asked[-1].span == Span(start=8, end=19)


@pytest.mark.parametrize("hash", ["#", "#prompt=only", "#prompt=a&response=b&context=%5Bcut"])
def test_a_link_that_was_cut_is_a_page_like_any_other(open_page, site, hash):
    watched = open_page(at=hash)
    expect(watched.page.get_by_text("Ask the model something")).to_be_visible()
    assert site.asked == []
    assert watched.faults == []


def test_what_a_model_writes_as_markdown_is_drawn_and_can_be_no_markup(open_page):
    page = open_page().page
    drawn = page.evaluate(
        """async (source) => {
          const { markdown } = await import("/static/common/markdown.js");
          const { placeOf } = await import("/static/common/inline.js");
          const place = document.createElement("div");
          place.append(...markdown(source));
          const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
          const misplaced = [];
          while (walker.nextNode()) {
            const { data } = walker.currentNode;
            const at = placeOf(walker.currentNode);
            if (source.slice(at, at + data.length) !== data) misplaced.push([at, data]);
          }
          return { html: place.innerHTML, misplaced };
        }""",
        """# A *head*

One **bold** and `a*b*` and \\*not\\* 2*3*4 snake_case_word.
Second line\x20\x20
broken. [site](https://example.org/a) [bad](javascript:void) ![img](https://x.org/i.png)

- one
- two
  1. deep
  2. deeper

3) third

> quoted
> on

```py
print("<b>")
```

| a | b |
|---|:-:|
| 1 | `x|y` |

<script>alert(1)</script> <img src=x onerror=alert(1)> &amp; https://a.example/x?y=1.
""",
    )
    html = drawn["html"]
    for part in (
        "<h3>A <em>head</em></h3>",
        "<strong>bold</strong> and <code>a*b*</code> and *not* 2*3*4 snake_case_word.",
        ".\nSecond line<br>broken. ",
        '<a href="https://example.org/a" rel="noopener noreferrer" target="_blank">site</a> bad i',
        "<li>two<ol><li>deep</li><li>deeper</li></ol></li>",
        '<ol start="3"><li>third</li></ol>',
        "<blockquote><p>quoted\non</p></blockquote>",
        'print("&lt;b&gt;")',
        "<td>1</td><td><code>x|y</code></td>",
        "&lt;script&gt;alert(1)&lt;/script&gt; &lt;img src=x onerror=alert(1)&gt; &amp;amp; ",
        ">https://a.example/x?y=1</a>.",
    ):
        assert part in html, html
    assert drawn["misplaced"] == []


def test_markdown_made_to_exhaust_the_browser_is_drawn_in_time(open_page):
    page = open_page().page
    lengths = page.evaluate(
        """async () => {
          const { markdown } = await import("/static/common/markdown.js");
          const sources = [
            ">".repeat(50000), "- ".repeat(20000), "*a ".repeat(20000), "[".repeat(50000),
            "`".repeat(50000), "**".repeat(30000), "_a*b".repeat(20000),
            "|".repeat(30000) + "\\n|-|", "a".repeat(1000000), "[a](".repeat(20000),
            "1. ".repeat(20000), "~~".repeat(20000),
          ];
          return sources.map((source) => {
            const place = document.createElement("div");
            const start = performance.now();
            place.append(...markdown(source));
            return [source.slice(0, 4), performance.now() - start];
          });
        }"""
    )
    # Milliseconds when nothing else runs; seconds would be a square of the length, or worse.
    assert [start for start, milliseconds in lengths if milliseconds > 10_000] == []
