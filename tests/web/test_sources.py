"""The sources of the page: what a strict Content-Security-Policy would refuse is not written."""

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from service.confidence import STANDS_OUT

STATIC = Path(__file__).resolve().parents[2] / "web" / "static"
SCRIPTS = sorted(STATIC.rglob("*.js"))
PAGES = sorted(STATIC.rglob("*.html"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_string_becomes_markup_or_code(path):
    source = path.read_text(encoding="utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", source
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_module_says_what_it_is_and_imports_only_its_neighbours(path):
    source = path.read_text(encoding="utf-8")
    assert source.startswith("/** ")
    for target in re.findall(r'from "([^"]+)"', source):
        assert (path.parent / target).is_file(), f"{path.name} imports {target}"
    for target in re.findall(r'new URL\("([^"]+\.\w+)", import\.meta\.url\)', source):
        assert (path.parent / target).is_file(), f"{path.name} fetches {target}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_module_asks_its_neighbours_only_one_way(path):
    # The sidebar knows nothing of the page that it is in, and what both share knows neither.
    folder = path.parent.name
    near = {".", "../common"}
    allowed = {"common": {"."}, "sidebar": near, "dashboard": near}.get(folder)
    for target in re.findall(r'from "([^"]+)"', path.read_text(encoding="utf-8")):
        assert allowed is None or target.rpartition("/")[0] in allowed, f"{path.name}: {target}"


def test_the_page_draws_the_line_where_the_service_does():
    words = (STATIC / "common" / "words.js").read_text(encoding="utf-8")
    drawn = re.search(r"export const STANDS_OUT = ([\d.]+);", words)
    assert drawn
    assert float(drawn[1]) == STANDS_OUT


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_holds_no_inline_code_and_every_file_it_names_is_there(path):
    class Page(HTMLParser):
        def handle_starttag(self, tag, attrs):
            names = dict(attrs)
            assert tag != "style"
            assert "style" not in names
            assert not [name for name in names if name.startswith("on")]
            if tag == "script":
                assert names.get("src")
            address = names.get("src") or (names.get("href") if tag == "link" else None)
            if address:
                assert address.startswith("static/"), f"{address} is absolute or of another host"
                assert (STATIC.parent / address).is_file(), f"{address} is missing"

    Page().feed(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("page", "script"),
    [("index.html", "page/page.js"), ("dashboard/index.html", "dashboard/dashboard.js")],
)
def test_every_module_of_a_page_is_asked_for_at_once(page, script):
    # Else a browser finds them one behind the other, and each way to the server counts.
    page = (STATIC / page).read_text(encoding="utf-8")
    waiting, needed = [STATIC / script], set()
    while waiting:
        path = waiting.pop()
        source = path.read_text(encoding="utf-8")
        found = re.findall(r'^(?:import|\} from|import .* from) "(\.[^"]+)";', source, re.M)
        found += re.findall(r'^export .* from "(\.[^"]+)";', source, re.M)
        new = {(path.parent / target).resolve() for target in found} - needed
        needed |= new
        waiting += new
    preloaded = re.findall(r'rel="modulepreload" href="static/([^"]+)"', page)
    assert preloaded == sorted(path.relative_to(STATIC).as_posix() for path in needed)


def test_the_wheel_carries_the_page():
    project = tomllib.loads((STATIC.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["setuptools"]["package-data"]["web"] == ["static/**"]
    # A link to the text in docs/: the wheel gets the text itself.
    assert (STATIC / "methods.md").read_text(encoding="utf-8").startswith("# ")
