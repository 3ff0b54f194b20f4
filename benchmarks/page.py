"""The page of a running server: how fast it is there, how heavy it is, and what it looks like.

    WHENCE_LEDGER_URL=demo.sqlite whence demo              in another terminal
    python -m benchmarks.page                              its figures, as a table
    python -m benchmarks.page --screenshots docs           the pictures of README and docs as well

The pictures of the dashboard want the ledger: the model is asked some questions for them first.

Every round opens the page in a fresh browser context, so that nothing is cached. *First contentful
paint* is the browser's own entry. *Usable* is when the sidebar is drawn and the form answers.
*Interaction* is from pressing the button to the next frame, which shows that the server is asked;
*answer* is from there to the frame that shows the cards, the server's own work included. Bytes are
those of all files of the first view as they come over the network.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

# The demo's own model gives this answer, which is that to another question.
PROMPT = "What did James K. Polk say about Oregon in the 1848 State of the Union message?"
RESPONSE = (
    "The weight of the precedent of the bank of 1791 and the sanction of the great name of "
    "Washington, which has been so often invoked in its support, are greatly weakened by the "
    "development of these facts."
)
QUESTION = "What is the population of {} according to the World Factbook?"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_MS = 120_000
COUNTRIES = ("Canada", "Egypt", "Japan", "Kenya", "Norway", "Peru", "Spain", "Vietnam")

PAINT = """() => new Promise((found) => new PerformanceObserver((list) => {
  const entry = list.getEntries().find(({ name }) => name === "first-contentful-paint");
  if (entry) found(entry.startTime);
}).observe({ type: "paint", buffered: true }))"""
WEIGHT = """() => {
  const entries = [...performance.getEntriesByType("navigation"),
                   ...performance.getEntriesByType("resource")];
  return { bytes: entries.reduce((sum, entry) => sum + entry.transferSize, 0),
           files: entries.length };
}"""
PRESS = """() => new Promise((drawn) => {
  const begun = performance.now();
  document.querySelector(".composer .primary").click();
  requestAnimationFrame(() => setTimeout(() => drawn(performance.now() - begun)));
})"""
ANSWERED = """() => new Promise((drawn) => {
  const begun = performance.now();
  const look = () => document.querySelector("#sidebar").shadowRoot.querySelector(".message")
    ? setTimeout(() => drawn(performance.now() - begun)) : requestAnimationFrame(look);
  look();
})"""


def opened(browser: Browser, url: str, **context: Any) -> Page:
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.locator("#sidebar .state").wait_for()
    return page


def bring_answer(page: Page, prompt: str, response: str) -> None:
    """Fill the form with an answer of one's own, without sending it."""
    own = page.get_by_role("button", name="Bring your own answer")
    if own.is_visible():
        own.click()
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Response", exact=True).fill(response)


def measured(browser: Browser, url: str, prompt: str, response: str) -> dict[str, float]:
    page = opened(browser, url)
    usable = page.evaluate("performance.now()")
    paint = page.evaluate(PAINT)
    page.wait_for_load_state("networkidle")
    weight = page.evaluate(WEIGHT)
    bring_answer(page, prompt, response)
    interaction = page.evaluate(PRESS)
    answer = page.evaluate(ANSWERED)
    page.context.close()
    return {
        "first contentful paint, ms": paint,
        "usable, ms": usable,
        "interaction, ms": interaction,
        "answer, ms": answer,
        "first view, kB": weight["bytes"] / 1e3,
        "files": weight["files"],
    }


def photograph(browser: Browser, url: str, folder: Path, prompt: str, response: str) -> None:
    """`page.png` for the README; the drawer, a dark phone and a part of an answer for the docs."""
    wide = opened(browser, url, viewport={"width": 1440, "height": 900}, color_scheme="light")
    answered(wide, prompt, response)
    wide.get_by_role("button", name="Words of the answer it moved").first.click()
    wide.locator(".turn .moved").wait_for()
    wide.screenshot(path=folder / "page.png")
    wide.get_by_role("button", name="Open the document").first.click()
    wide.get_by_role("dialog").locator("mark").first.wait_for()
    wide.screenshot(path=folder / "page-document.png")
    wide.context.close()
    phone = opened(browser, url, viewport={"width": 390, "height": 844}, color_scheme="dark")
    answered(phone, prompt, response)
    phone.locator("#sidebar").scroll_into_view_if_needed()
    phone.locator("#sidebar").evaluate("node => node.scrollIntoView()")
    phone.screenshot(path=folder / "page-phone.png")
    phone.context.close()


def photograph_dashboard(browser: Browser, url: str, folder: Path) -> None:
    """`dashboard.png` and `dashboard-dark.png`: owners, over answers that the model gives now.

    Raises:
        SystemExit: The server keeps no ledger, or its model does not chat.
    """
    context = browser.new_context()
    models = context.request.get(f"{url}/v1/models")
    if not models.ok:
        raise SystemExit(f"{url} does not chat: {models.text()}")
    model = models.json()["data"][0]["id"]
    for country in COUNTRIES:
        question = QUESTION.format(country)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "attribution": {},
        }
        answer = context.request.post(f"{url}/v1/chat/completions", data=body, timeout=PATIENCE_MS)
        if not answer.ok:
            raise SystemExit(f"No answer about {country}: {answer.text()}")
    context.close()
    for name, scheme in (("dashboard", "light"), ("dashboard-dark", "dark")):
        page = browser.new_context(
            viewport={"width": 1440, "height": 900}, color_scheme=scheme
        ).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{url}/dashboard")
        page.locator("#view[data-state=answer], #view[data-state=error]").wait_for()
        if page.locator(".failed").count():
            raise SystemExit(
                f"No picture of the dashboard: {page.locator('.failed .detail').inner_text()}"
            )
        for plot in page.locator(".plot").all():
            plot.locator("svg").first.wait_for()
        page.screenshot(path=folder / f"{name}.png")
        page.context.close()


def answered(page: Page, prompt: str, response: str) -> None:
    """Send the form and wait until the words that carry the answer are shaded."""
    bring_answer(page, prompt, response)
    page.locator(".composer .primary").click()
    page.locator(".card mark").first.wait_for()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="A server without keys.")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--response", default=RESPONSE)
    parser.add_argument("--screenshots", type=Path, help="Folder to write pictures into.")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=FLAGS)
        rounds = [
            measured(browser, given.url, given.prompt, given.response) for _ in range(given.rounds)
        ]
        print("| | median | lowest | highest |\n|---|---|---|---|")
        for name in rounds[0] if rounds else ():
            values = [one[name] for one in rounds]
            spread = (statistics.median(values), min(values), max(values))
            print(f"| {name} | {' | '.join(f'{value:.0f}' for value in spread)} |")
        if given.screenshots is not None:
            given.screenshots.mkdir(parents=True, exist_ok=True)
            photograph(browser, given.url, given.screenshots, given.prompt, given.response)
            photograph_dashboard(browser, given.url, given.screenshots)
            print(f"Pictures are in {given.screenshots}.")
        browser.close()


if __name__ == "__main__":
    main()
