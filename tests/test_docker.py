"""The images and the Compose file, read without a Docker engine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.name


def instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and argument of every line, continued lines joined, comments left out."""
    lines = [
        line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (words[0], words[1])
        for line in joined.splitlines()
        if len(words := line.split(None, 1)) > 1
    ]


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_hadolint_finds_nothing(path):
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_an_image_runs_as_an_ordinary_user_from_a_second_stage(path):
    steps = instructions(path)
    last = max(i for i, (word, _) in enumerate(steps) if word == "FROM")
    assert last > 0, "the build tools stay behind in a first stage"
    users = [argument for word, argument in steps[last:] if word == "USER"]
    assert users == ["10001:10001"]  # a number: Kubernetes cannot check a name


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_an_image_installs_extras_that_exist_at_pinned_versions(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installs = [a for word, a in instructions(path) if word == "RUN" and "pip install" in a]
    assert all("--constraint constraints.txt" in step for step in installs)
    extras = re.findall(r"'\.\[([a-z,]+)\]'", " ".join(installs))
    assert len(extras) == 1
    chosen = set(extras[0].split(","))
    assert chosen <= set(project["optional-dependencies"])
    assert not {"cpu", "gpu"} <= chosen, "both provide `import faiss`"


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_a_base_image_is_of_one_version(path):
    for word, argument in instructions(path):
        if word == "FROM":
            image = argument.split()[0]
            assert re.search(r":[\w.-]*\d", image), f"{image} has no version"
            assert "latest" not in image


def test_what_is_copied_into_the_builder_is_there():
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in kept:
        if line.startswith("!"):
            assert (ROOT / line[1:]).exists(), line
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= {line[1:] for line in kept}


def test_every_service_is_built_here_and_hardened():
    assert set(COMPOSE["services"]) == {"serve", "serve-gpu", "index", "keys"}
    for service in COMPOSE["services"].values():
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_only_the_server_starts_unasked_and_only_for_this_machine():
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["serve"]
    for service in ("serve", "serve-gpu"):
        assert services[service]["ports"] == ["127.0.0.1:8000:8000"]
        assert "/readyz" in services[service]["healthcheck"]["test"][-1]
        assert services[service]["restart"] == "unless-stopped"


def test_the_server_reads_the_index_that_the_indexer_writes():
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    assert "index:/index" in services["index"]["volumes"]
    assert "index:/index:ro" in services["serve"]["volumes"]
    assert set(volumes) == {"index", "keys"}
