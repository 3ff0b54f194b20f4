"""The page as people get it: served over HTTP, opened in a real browser."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from api.app import create_app
from influence.errors import AttributionError, NotFound
from influence.manifest import Quality
from service.schemas import (
    AttributeRequest,
    AttributeResult,
    DocumentResult,
    IndexFacts,
    PassageReference,
    ServiceInfo,
)

DESCRIPTION = ("title", "source", "owner", "licence", "url")
BEFORE = "A heading before it.\n" * 50
expect.set_options(timeout=20_000)  # a machine that runs other tests as well is slow
DEBIAN_CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def hit(rank: int, relative: float, **fields: Any) -> dict[str, Any]:
    """One proponent or opponent as `POST /attribute` gives it."""
    text = fields.pop(
        "text",
        "How many people live in Egypt?\n\nThe population of Egypt is estimated at 111,247,248. "
        "About 95% of them live within 20 km of the Nile River and its delta; vast areas of the "
        "country remain uninhabited. The median age is 24.4 years, and 43.4% of the population "
        "lives in cities.",
    )
    return {
        "rank": rank,
        "document_id": f"factbook/egypt/{rank}",
        "passage_id": f"factbook/egypt/{rank}#0",
        "influence": relative * 3000,
        "relative_influence": relative,
        "confidence": min(0.9999, 6 * abs(relative)),
        "title": "Egypt: People and Society",
        "source": "CIA World Factbook",
        "owner": "Egypt",
        "licence": "US government work",
        "url": "https://www.cia.gov/the-world-factbook/countries/egypt/",
        "text": text,
        "start": 0,
        "end": len(text),
        **fields,
    }


def against(rank: int, relative: float, *, owner: str, title: str) -> dict[str, Any]:
    """An opponent, of a document of its own."""
    name = f"factbook/{owner.lower()}"
    text = f"The population of {owner} is told here, and it is another one."
    return hit(
        rank,
        relative,
        document_id=name,
        passage_id=f"{name}#0",
        owner=owner,
        title=title,
        text=text,
    )


def attribution(*, stands_out: bool = True, **fields: Any) -> dict[str, Any]:
    """An answer of `POST /attribute`: Canada's population told with Egypt's figure."""
    scale = 1.0 if stands_out else 0.06
    return {
        "request_id": "01JD3V6S2Q",
        "model": "SmolLM2-135M-Instruct",
        "index": {"id": "demo", "version": "20251123-210405", "exact": True},
        "query": {
            "tokens": 37,
            "loss_nats": 41.72,
            "measurement": "loss",
            "value": 41.72,
            "stands_out": stands_out,
            "message": None
            if stands_out
            else "No indexed document stands out for this answer; it most likely comes from data "
            "outside this index.",
        },
        "proponents": [
            hit(1, 0.3142 * scale),
            hit(
                2,
                0.0917 * scale,
                title="Sudan: People and Society",
                owner="Sudan",
                text="Of Sudan's 50,467,278 people most live along the Nile. It floods in summer.",
            ),
            hit(
                3,
                0.0544 * scale,
                title="State of the Union Address, 12 January 1961",
                source="State of the Union",
                owner="Dwight D. Eisenhower",
                url=None,
                text="Short and whole.",
            ),
        ],
        "opponents": [
            against(1, -0.2261 * scale, title="Canada: People and Society", owner="Canada"),
            against(2, -0.0418 * scale, title="Greenland: People and Society", owner="Greenland"),
        ],
        "owners": [
            {"owner": name, "influence": influence, "share": max(0, influence) / 1430}
            for name, influence in [
                ("Egypt", 942.6),
                ("Sudan", 275.1),
                ("Dwight D. Eisenhower", 163.2),
                ("Chad", 41.0),
                (None, -12.4),
                ("Greenland", -125.4),
                ("Canada", -678.3),
            ]
        ],
        "timings_ms": {"queue": 0.2, "gradient": 812.0, "search": 6.1, "fetch": 2.3},
        "cached": False,
        **fields,
    }


def explained(hit: dict[str, Any], response: str) -> dict[str, Any]:
    """A hit with its influence in parts: the longer a word, the more it carries."""

    def parts(text: str, start: int = 0) -> list[dict[str, Any]]:
        words = list(re.finditer(r"\S+", text))
        whole = sum(len(word[0]) for word in words)
        return [
            {
                "start": start + word.start(),
                "end": start + word.end(),
                "influence": hit["influence"] * len(word[0]) / whole,
            }
            for word in words
        ]

    explanation = {
        "tokens_elsewhere": 0.0,
        "response": parts(response),
        "alternative": None,
        "response_elsewhere": 0.0,
        "kinds": {"attention": 0.0, "mlp": hit["influence"], "other": 0.0},
        "layers": [{"layer": "layers.0.mlp", "kind": "mlp", "influence": hit["influence"]}],
    }
    return hit | {"tokens": parts(hit["text"], hit["start"]), "explanation": explanation}


class Site:
    """The application with an attributor that answers what a test has put down for it."""

    def __init__(self) -> None:
        self.address = ""
        self.ready = True
        self.hold = threading.Event()  # cleared: requests wait
        self.reset()

    def reset(self) -> None:
        self.answer: dict[str, Any] = attribution()
        self.quality: tuple[Quality, ...] = ()  # what was measured of the index
        self.after = " The end."  # of every document, behind its passage
        self.refusal: AttributionError | None = None
        self.asked: list[AttributeRequest] = []
        self.explained: list[AttributeRequest] = []  # what is asked behind an answer
        self.hold.set()

    def nothing(self) -> None:
        """Answer that no document stands out."""
        self.answer = attribution(stands_out=False)

    def wait_for_questions(self, number: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.asked) < number and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.asked) == number

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check_ready(self) -> None: ...

    def check_room(self) -> None: ...

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        (self.explained if request.explain else self.asked).append(request)
        while not self.hold.is_set():
            await asyncio.sleep(0.02)
        if self.refusal is not None:
            raise self.refusal
        answer = self.answer | {"request_id": request_id}
        if request.explain:
            for side in ("proponents", "opponents"):
                hits = answer[side][: request.top_k]
                answer[side] = [explained(hit, request.response) for hit in hits]
        return AttributeResult.model_validate_json(json.dumps(answer))

    async def document(self, document_id: str) -> DocumentResult:
        for hit in [*self.answer["proponents"], *self.answer["opponents"]]:
            if hit["document_id"] == document_id:
                described = {name: hit[name] for name in DESCRIPTION}
                passage = {"id": hit["passage_id"], "start": hit["start"], "end": hit["end"]}
                return DocumentResult(
                    id=document_id,
                    text=BEFORE[: hit["start"]] + hit["text"] + self.after,
                    metadata={},
                    passages=(PassageReference(**passage),),
                    **described,
                )
        raise NotFound(f"There is no document {document_id}. Name one of the index.")

    async def info(self) -> ServiceInfo:
        return ServiceInfo(
            version="0.1.0",
            model="models/SmolLM2-135M-Instruct",
            dtype="float32",
            context_length=8192,
            index=IndexFacts(
                id="demo",
                version="000001-0f3a9c5d7e21",
                exact=True,
                documents=412,
                passages=518,
                owners=45,
                dims=16384,
                search="float32",
                quality=self.quality,
            ),
        )


@contextmanager
def serving(site: Site, **settings: Any) -> Iterator[None]:
    """Serve a site on a free port of this machine; it knows its address then."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        site.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = create_app(site, **settings)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield
        site.hold.set()
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture(scope="session")
def running_site() -> Iterator[Site]:
    site = Site()
    with serving(site):
        yield site


@pytest.fixture(scope="session")
def serve_site() -> Any:
    """Serve a site of one's own, with settings of one's own."""

    @contextmanager
    def serve_site(**settings: Any) -> Iterator[Site]:
        site = Site()
        with serving(site, **settings):
            yield site

    return serve_site


@pytest.fixture
def site(running_site: Site) -> Iterator[Site]:
    running_site.reset()
    yield running_site
    running_site.reset()


@pytest.fixture(scope="module")  # its event loop must not stay for tests of other files
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        executable = DEBIAN_CHROMIUM if DEBIAN_CHROMIUM.exists() else own
        if not executable.exists():
            pytest.skip("no browser: `make test` says how to get one")
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A page that remembers what went wrong in it, and every host it spoke to."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._heard)
        page.on("request", lambda request: self.requests.append(request.url))

    def _heard(self, line: ConsoleMessage) -> None:
        # Whether a model answers here is found by asking; a browser writes every 404 down.
        if line.type == "error" and "/v1/models" not in line.location["url"]:
            self.faults.append(line.text)

    def ask(self, prompt: str = "How many people live in Canada?", response: str = "111,247,248"):
        self.page.get_by_label("Prompt").fill(prompt)
        self.page.get_by_label("Response", exact=True).fill(response)
        self.page.get_by_role("button", name="Attribute", exact=True).click()


@pytest.fixture
def open_page(browser: Browser, site: Site) -> Iterator[Any]:
    contexts = []

    def open_page(
        width: int = 1280, height: int = 900, scheme: Any = "light", at: str = ""
    ) -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.set_default_timeout(30_000)
        watched.page.goto(f"{site.address}/{at}")
        expect(watched.page.get_by_label("Response", exact=True)).to_be_visible(timeout=30_000)
        return watched

    yield open_page
    for context in contexts:
        context.close()
