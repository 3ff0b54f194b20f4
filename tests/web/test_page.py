"""The sidebar in a real browser: every state and what can be done in it."""

import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from influence.errors import QueryTooLong, Unauthenticated
from service.schemas import AttributeRequest, Filter

TOO_LONG = QueryTooLong(
    "Prompt and response are 9,312 tokens and the model reads at most 2,048. Shorten the "
    "response, or attribute a part of it."
)
NO_KEY = Unauthenticated("This needs an API key: send one.", key_given=False)


def test_a_question_is_sent_as_it_was_entered_and_answered(open_page, site):
    watched = open_page()
    watched.ask("How many people live in Canada?", "  About 111,247,248.\nMost near the Nile. ")
    panel = watched.page.get_by_role("region", name="Most valuable data")
    expect(panel.get_by_role("heading", name="Egypt: People and Society")).to_be_visible()
    expect(watched.page.locator(".turn .answer")).to_have_text(
        "  About 111,247,248.\nMost near the Nile. ", use_inner_text=True
    )
    assert site.asked == [
        AttributeRequest(
            prompt="How many people live in Canada?",
            response="  About 111,247,248.\nMost near the Nile. ",
            top_k=10,
            ranking="relative",
        )
    ]
    assert watched.faults == []


def test_a_card_says_who_what_and_how_much(open_page):
    watched = open_page()
    watched.ask()
    card = watched.page.locator(".proponents .card").first
    for text in (
        "Egypt: People and Society",
        "CIA World Factbook",
        "Owner: Egypt",
        "Licence: US government work",
        "+0.314",
        "made this answer more likely",
        "Stands out, confidence above 99.9 %",
        "+942.6 nats",
        "About 95% of them live within 20 km of the Nile River",
    ):
        expect(card).to_contain_text(text)
    link = card.get_by_role("link")
    expect(link).to_have_attribute(
        "href", "https://www.cia.gov/the-world-factbook/countries/egypt/"
    )
    expect(link).to_have_attribute("rel", "noopener noreferrer")


def test_an_opponent_is_drawn_to_the_other_side_with_its_sign_in_words(open_page):
    watched = open_page()
    watched.ask()
    card = watched.page.locator(".opponents .card").first
    expect(card).to_contain_text("−0.226")
    expect(card).to_contain_text("made this answer less likely")

    def sides(selector: str) -> tuple[float, float, float]:
        track = watched.page.locator(f"{selector} .card .bar").first.bounding_box()
        fill = watched.page.locator(f"{selector} .card .bar > span").first.bounding_box()
        assert track
        assert fill
        return fill["x"], fill["x"] + fill["width"], track["x"] + track["width"] / 2

    left, right, middle = sides(".opponents")
    assert left < middle - 10
    assert right <= middle + 1
    left, right, middle = sides(".proponents")
    assert right > middle + 10
    assert left >= middle - 1


def test_owners_are_one_bar_and_all_totals_come_by_size_on_request(open_page):
    watched = open_page()
    watched.ask()
    owners = watched.page.get_by_role("region", name="Owners")
    expect(owners.locator(".shares .name")).to_have_text(
        ["Egypt", "Sudan", "Dwight D. Eisenhower", "Chad"]
    )
    widths = owners.locator(".stack span").evaluate_all(
        "parts => parts.map((part) => part.getBoundingClientRect().width)"
    )
    assert widths == sorted(widths, reverse=True)
    names = owners.locator(".owner .name")
    expect(names.first).to_be_hidden()
    owners.get_by_text("All owners, for and against").click()
    expect(names).to_have_text(
        [
            "Egypt",
            "Canada",
            "Sudan",
            "Dwight D. Eisenhower",
            "Greenland",
            "Chad",
            "No owner named",
        ]
    )
    expect(owners).to_contain_text("−678.3 nats")


def test_an_owner_of_the_bar_filters_and_one_goes_back_to_all(open_page, site):
    watched = open_page()
    watched.ask()
    page = watched.page
    page.get_by_role("button", name="Sudan").click()
    expect(page.locator(".scope")).to_have_text(re.compile("Among documents of owner Sudan"))
    site.wait_for_questions(2)
    assert site.asked[-1].filter == Filter(owners=("Sudan",))
    page.get_by_role("combobox", name="Source").select_option("CIA World Factbook")
    expect(page.locator(".scope")).to_contain_text("owner Sudan, source CIA World Factbook")
    site.wait_for_questions(3)
    assert site.asked[-1].filter == Filter(owners=("Sudan",), sources=("CIA World Factbook",))
    page.get_by_role("button", name="Back to the whole answer").click()
    expect(page.locator(".scope")).to_be_hidden()
    site.wait_for_questions(4)
    assert site.asked[-1].filter is None


def test_the_best_sentence_is_shown_with_its_tokens_shaded_behind_the_answer(open_page, site):
    site.answer["proponents"][0]["text"] = "It is. Uninhabited areas of the country remain. No."
    watched = open_page()
    watched.ask()
    text = watched.page.locator(".proponents .card .text").first
    expect(text.locator("mark").first).to_have_text("Uninhabited")
    expect(text).to_have_text("… Uninhabited areas of the country remain.  …")
    (asked,) = site.explained
    assert (asked.explain, asked.top_k) == (True, 1)
    assert asked.usage is not None
    assert asked.usage.weight < 1e-6  # the answer was counted already


def test_near_duplicates_are_one_card_with_a_count(open_page, site):
    for hit in site.answer["proponents"]:
        hit["confidence"] = 0.99
    site.answer["proponents"][2]["text"] = site.answer["proponents"][0]["text"] + " Again."
    watched = open_page()
    watched.ask()
    side = watched.page.get_by_role("region", name="Proponents")
    expect(side.locator(".card:visible")).to_have_count(2)
    side.get_by_text("1 near-duplicate of this text").click()
    expect(side.get_by_role("button", name="State of the Union Address")).to_be_visible()


def test_a_document_opens_with_its_tokens_shaded_and_closes_by_key(open_page, site):
    for hit in site.answer["proponents"]:  # not at the start of its document
        hit["start"], hit["end"] = 1000, 1000 + len(hit["text"])
    watched = open_page()
    watched.ask()
    opener = watched.page.get_by_role("button", name="Open the document Egypt: People")
    opener.click()
    drawer = watched.page.get_by_role("dialog", name="Egypt: People and Society")
    expect(drawer.locator(".passage")).to_contain_text("How many people live in Egypt?")
    expect(drawer.locator(".around").last).to_have_text(" The end.")
    expect(drawer.locator(".passage mark").first).to_have_text("How")
    expect(drawer).to_contain_text("Most: 111,247,248 (+")
    axe = Axe().run(watched.page).response["violations"]
    assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in axe] == []
    drawer.get_by_role("button", name="In the answer").click()
    expect(drawer.locator(".answer-text mark")).to_have_text("111,247,248")
    watched.page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(opener).to_be_focused()


def test_a_document_that_is_gone_is_told_in_the_drawer_and_can_be_asked_for_again(open_page, site):
    watched = open_page()
    watched.ask()
    card = watched.page.locator(".opponents .card").first
    watched.page.route("**/documents/**", lambda route: route.abort("connectionrefused"))
    card.get_by_role("button", name="Open the document").click()
    drawer = watched.page.get_by_role("dialog")
    expect(drawer).to_contain_text("The server could not be reached")
    watched.page.unroute("**/documents/**")
    drawer.get_by_role("button", name="Try again").click()
    expect(drawer.locator(".passage")).to_contain_text("The population of Canada")


def test_when_nothing_stands_out_it_says_so_and_keeps_the_weak_hits_back(open_page, site):
    site.nothing()
    watched = open_page()
    watched.ask()
    page = watched.page
    expect(page.locator(".message")).to_have_text(
        "No indexed document stands out for this answer; it most likely comes from data outside "
        "this index."
    )
    card = page.locator(".proponents .card").first
    expect(card).to_be_hidden()
    expect(page.get_by_role("region", name="Owners")).to_be_hidden()
    assert site.explained == []
    page.get_by_text("Show the weak hits anyway").click()
    expect(card).to_be_visible()


def test_beside_what_stands_out_the_weak_hits_are_folded(open_page):
    watched = open_page()
    watched.ask()
    side = watched.page.get_by_role("region", name="Proponents")
    expect(side.locator(".card:visible")).to_have_count(1)
    side.get_by_text("Show 2 more that do not stand out").click()
    expect(side.locator(".card:visible")).to_have_count(3)
    expect(side.locator(".card").last).to_contain_text("Does not stand out, confidence 32.6 %")


def test_a_side_on_which_none_stands_out_says_so(open_page, site):
    for hit in site.answer["opponents"]:
        hit["confidence"] = 0.2
    watched = open_page()
    watched.ask()
    side = watched.page.get_by_role("region", name="Opponents")
    expect(side.get_by_text("None stands out.")).to_be_visible()
    expect(side.locator(".card:visible")).to_have_count(0)


def test_an_error_is_the_server_s_sentence_and_can_be_retried(open_page, site):
    site.refusal = TOO_LONG
    watched = open_page()
    watched.ask()
    alert = watched.page.get_by_role("alert")
    expect(alert).to_contain_text("Query too long")
    expect(alert).to_contain_text(str(TOO_LONG))
    expect(alert).to_contain_text(re.compile(r"Status 4\d\d, request \w+"))
    site.reset()
    alert.get_by_role("button", name="Try again").click()
    expect(watched.page.locator(".proponents .card").first).to_be_visible()
    assert len(site.asked) == 1


def test_a_dead_server_is_told_apart_from_a_refusal(open_page):
    watched = open_page()
    watched.page.route("**/attribute", lambda route: route.abort("connectionrefused"))
    watched.ask()
    expect(watched.page.get_by_role("alert")).to_contain_text("The server could not be reached")
    watched.page.unroute("**/attribute")
    watched.page.get_by_role("button", name="Try again").click()
    expect(watched.page.locator(".proponents .card").first).to_be_visible()


def test_a_proxy_that_answers_in_html_is_an_error_too(open_page):
    watched = open_page()
    watched.page.route("**/attribute", lambda route: route.fulfill(status=502, body="<h1>no</h1>"))
    watched.ask()
    expect(watched.page.get_by_role("alert")).to_contain_text("status 502")


def test_what_the_types_refuse_is_told_as_well(open_page):
    watched = open_page()
    watched.page.get_by_label("Prompt").evaluate("node => { node.value = 'p'.repeat(300_000) }")
    watched.page.get_by_label("Response", exact=True).fill("r")
    watched.page.get_by_role("button", name="Attribute", exact=True).click()
    expect(watched.page.get_by_role("alert")).to_contain_text("prompt")


def test_a_server_that_wants_a_key_is_given_one_and_the_tab_keeps_it(open_page, site):
    site.refusal = NO_KEY
    watched = open_page()
    watched.ask()
    field = watched.page.get_by_label("API key", exact=True)
    expect(field).to_be_focused()
    field.fill("whence_1_wrong")
    field.press("Enter")
    site.wait_for_questions(2)
    expect(field).to_be_visible()  # refused again
    expect(field).to_have_value("")
    site.refusal = None
    field.fill("whence_1_right")
    with watched.page.expect_request("**/attribute") as sent:
        watched.page.get_by_role("button", name="Use this key").click()
    assert sent.value.headers["authorization"] == "Bearer whence_1_right"
    expect(watched.page.locator(".proponents .card").first).to_be_visible()
    watched.page.reload()
    with watched.page.expect_request("**/attribute") as sent:
        watched.ask()
    assert sent.value.headers["authorization"] == "Bearer whence_1_right"
    assert watched.page.evaluate("localStorage.length + document.cookie.length") == 0


def test_work_shows_that_time_passes_and_can_be_cancelled(open_page, site):
    site.hold.clear()
    watched = open_page()
    watched.ask()
    page = watched.page
    panel = page.get_by_role("region", name="Most valuable data")
    expect(panel).to_have_attribute("aria-busy", "true")
    expect(panel.locator(".elapsed")).to_have_text(re.compile(r"\d\.\d s"))
    with page.expect_event("requestfailed"):
        panel.get_by_role("button", name="Cancel").click()
    expect(panel).to_have_attribute("aria-busy", "false")
    expect(panel).to_contain_text("Every document of the training corpus")


def test_only_the_newest_question_is_answered(open_page, site):
    site.hold.clear()
    watched = open_page()
    watched.ask(response="first")
    expect(watched.page.locator(".progress")).to_be_visible()
    site.wait_for_questions(1)
    with watched.page.expect_event("requestfailed"):
        watched.ask(response="second")
    site.wait_for_questions(2)
    site.hold.set()
    expect(watched.page.locator(".proponents .card").first).to_be_visible()
    assert [request.response for request in site.asked] == ["first", "second"]


def test_empty_fields_never_leave_the_page(open_page, site):
    watched = open_page()
    watched.ask("", "")
    expect(watched.page.get_by_label("Prompt")).to_be_focused()
    assert site.asked == []


def test_corpus_text_is_never_markup(open_page, site):
    hostile = (
        "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
        "\u202etxet desrever\u202c \U0001f30d" + "unbroken" * 2000
    )
    for side in ("proponents", "opponents"):
        for hit in site.answer[side]:
            for field in ("title", "source", "owner", "licence", "text"):
                hit[field] = hostile
            hit["url"] = "javascript:window.owned=1"
    site.answer["owners"][0]["owner"] = hostile
    site.answer["query"]["message"] = hostile
    watched = open_page(width=360)
    watched.ask()
    page = watched.page
    expect(page.locator(".card .text").first).to_contain_text("<script>window.owned = 1</script>")
    assert page.evaluate("window.owned") is None
    site.after = "x" * 1_000_000  # one line of the document
    page.locator(".card .open").first.click()
    expect(page.locator(".drawer .passage")).to_contain_text("<script>window.owned = 1</script>")
    assert page.locator(".drawer .around").evaluate("node => node.textContent.length") >= 1_000_000
    assert page.evaluate("window.owned") is None
    assert page.locator(".panel .view :is(script, img, a)").count() == 0
    assert page.locator(".drawer :is(script, img, a)").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert watched.faults == []
