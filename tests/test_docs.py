"""The documents say what is true: commands parse, links lead somewhere, settings are all there."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shell_lines(path: Path) -> Iterator[str]:
    """Lines of the code blocks of a document, continued ones joined, prompts taken off."""
    for _, block in FENCE.findall(path.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.removeprefix("$ ").strip()


def inline_code(path: Path) -> list[str]:
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def whence_commands() -> Iterator[tuple[str, list[str], bool]]:
    """Every `whence …` with where it stands, and whether it is run there or only mentioned."""
    for path in DOCUMENTS:
        for lines, run in ((shell_lines(path), True), (inline_code(path), False)):
            for line in lines:
                if line.startswith("whence "):
                    yield name(path), shlex.split(line, comments=True)[1:], run
    for path in ROOT.glob("docker/*.Dockerfile"):
        for arguments in re.findall(r"^CMD (\[.*\])$", path.read_text(encoding="utf-8"), re.M):
            yield name(path), json.loads(arguments), True


def complaint(arguments: list[str], *, complete: bool) -> str | None:
    """What the command line would say against these arguments, or None."""
    from cli.main import app

    group: Any = typer.main.get_command(app)
    command, given = group, list(arguments)
    while hasattr(command, "commands") and given:
        name, *given = given
        if name not in command.commands:
            return f"there is no command {name!r}"
        command = command.commands[name]
    context = command.context_class(command, info_name=arguments[0])
    try:
        values, extra, _ = command.make_parser(context).parse_args(given)
    except Exception as error:  # noqa: BLE001 - whatever the parser objects to is the answer
        return str(error)
    if extra:
        return f"unexpected {extra}"
    missing = [p.name for p in command.params if p.required and values.get(p.name) is None]
    return f"without {missing}" if complete and missing else None


@pytest.mark.parametrize(("where", "arguments", "run"), list(whence_commands()), ids=str)
def test_every_whence_command_parses(where, arguments, run):
    assert complaint(arguments, complete=run) is None


def test_a_wrong_command_would_be_noticed():
    assert complaint(["indx"], complete=False)
    assert complaint(["keys", "creat"], complete=False)
    assert complaint(["index", "corpus.jsonl", "--modell", "m"], complete=False)
    assert complaint(["index", "corpus.jsonl"], complete=True)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_relative_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), f"{target} is missing"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, f"{target}: no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_make_target_exists(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for line in [*shell_lines(path), *inline_code(path)]:
        if line.startswith("make "):
            assert line.split()[1] in targets, line


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_file_named_in_prose_is_there(path):
    named = [
        c for c in inline_code(path) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+\.(py|js|css|html)", c)
    ]
    assert [c for c in named if not (ROOT / c).exists()] == []


def test_every_setting_is_documented_with_its_default_and_none_beside_them():
    from service.settings import Settings

    table = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(WHENCE_\w+)` \| ([^|]*) \|", table, re.MULTILINE))
    settings = {
        f"WHENCE_{field.upper()}": "required" if info.is_required() else str(info.default)
        for field, info in Settings.model_fields.items()
    }
    assert {key: value.strip().strip("`") for key, value in rows.items()} == settings
