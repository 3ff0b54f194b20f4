"""<most-valuable-data> in a page of another origin that forbids whatever can be forbidden."""

import threading
from collections.abc import Iterator
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from influence.errors import Unauthenticated

APP = b"""
const sidebar = document.querySelector("most-valuable-data");
window.told = [];
for (const type of ["attribution", "document-open", "error"]) {
  sidebar.addEventListener(type, (event) => window.told.push([type, event.detail]));
}
sidebar.prompt = "How many people live in Canada?";
sidebar.response = "111,247,248";
"""
STYLE = b"most-valuable-data { --whence-for: rgb(1, 2, 3); width: 24rem; }"


class Foreign(ThreadingHTTPServer):
    """A page that embeds the sidebar by one script tag, and what else it is made of."""

    site: Any = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)

    @cached_property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Foreign

    def do_GET(self) -> None:
        whence = self.server.site.address
        page = f"""<!doctype html><html lang="en"><title>Elsewhere</title>
            <link rel="stylesheet" href="app.css"><script src="app.js" defer></script>
            <script type="module" src="{whence}/static/most-valuable-data.js"></script>
            <h1>Elsewhere</h1>
            <most-valuable-data endpoint="{whence}" token="whence_1_theirs"></most-valuable-data>"""
        kinds = {
            "/": ("text/html", page.encode()),
            "/app.js": ("text/javascript", APP),
            "/app.css": ("text/css", STYLE),
        }
        kind, body = kinds.get(self.path, ("text/plain", b""))
        self.send_response(200 if body else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header(
            "Content-Security-Policy",
            f"default-src 'none'; script-src 'self' {whence}; connect-src {whence}; "
            "style-src 'self'; base-uri 'none'; form-action 'none'; "
            "require-trusted-types-for 'script'; trusted-types 'none'",
        )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def foreign(serve_site) -> Iterator[Foreign]:
    with Foreign() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        with serve_site(cors_origins=(server.address,)) as server.site:
            yield server
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def page(browser: Browser, foreign: Foreign) -> Iterator[Any]:
    foreign.site.reset()
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.faults = faults = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    yield page
    context.close()


def test_it_works_where_inline_styles_strings_as_markup_and_other_hosts_are_forbidden(
    page, foreign
):
    with page.expect_request("**/attribute") as sent:
        page.goto(foreign.address)
    assert sent.value.headers["authorization"] == "Bearer whence_1_theirs"
    expect(page.locator(".proponents .card").first).to_be_visible()
    expect(page.locator(".proponents .card mark").first).to_be_visible()
    asked = foreign.site.asked[-1]
    assert (asked.prompt, asked.response) == ("How many people live in Canada?", "111,247,248")
    page.get_by_role("button", name="Open the document Egypt").click()
    expect(page.get_by_role("dialog").locator(".passage mark").first).to_be_visible()
    told = page.evaluate("window.told.map(([type, detail]) => [type, detail])")
    assert [type for type, _ in told] == ["attribution", "document-open"]
    assert told[0][1]["proponents"][0]["document_id"] == "factbook/egypt/1"
    assert told[1][1] == {"document_id": "factbook/egypt/1", "passage_id": "factbook/egypt/1#0"}
    colours = page.locator(".proponents h3").evaluate("node => getComputedStyle(node).color")
    assert colours == "rgb(1, 2, 3)"  # as the page that embeds it says
    assert page.faults == []


def test_properties_that_are_set_together_are_one_question_and_a_page_may_open_documents_itself(
    page, foreign
):
    page.goto(foreign.address)
    expect(page.locator(".proponents .card").first).to_be_visible()
    page.evaluate(
        """() => {
          const sidebar = document.querySelector("most-valuable-data");
          sidebar.addEventListener("document-open", (event) => event.preventDefault());
          Object.assign(sidebar, { prompt: "And Chad?", response: "Ten.", span: null });
        }"""
    )
    expect(page.locator(".message")).to_be_visible()
    page.wait_for_function("window.told.filter(([type]) => type === 'attribution').length === 2")
    assert [request.prompt for request in foreign.site.asked] == [
        "How many people live in Canada?",
        "And Chad?",
    ]
    page.get_by_role("button", name="Open the document Egypt").click()
    page.wait_for_function("window.told.at(-1)[0] === 'document-open'")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_token_that_is_refused_is_told_and_another_one_is_used_at_once(page, foreign):
    foreign.site.refusal = Unauthenticated("This key is not valid.", key_given=True)
    page.goto(foreign.address)
    expect(page.get_by_role("alert")).to_contain_text("This key is not valid.")
    assert page.evaluate("window.told.map(([type, { status }]) => [type, status])") == [
        ["error", 401]
    ]
    foreign.site.refusal = None
    with page.expect_request("**/attribute") as sent:
        page.locator("most-valuable-data").evaluate(
            "node => node.setAttribute('token', 'whence_1_new')"
        )
    assert sent.value.headers["authorization"] == "Bearer whence_1_new"
    expect(page.locator(".proponents .card").first).to_be_visible()
