"""The folders are the architecture: which package may import which, read from the sources."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT: dict[str, set[str]] = {
    "influence": set(),
    "indexer": {"influence"},
    "service": {"influence"},
    "api": {"service", "influence", "whence_client"},
    "evaluation": {"influence", "indexer", "service"},
    "demo": {"influence", "indexer", "service"},
    "cli": {"influence", "indexer", "service", "api", "evaluation", "demo"},
    "web": set(),
    "whence_client": {"service"},
}

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

# What a process that only speaks HTTP, or only reads a document, must not have to load.
HEAVY = ("torch", "faiss", "transformers")
LIGHT = [
    "whence_client",
    "api.app",
    "service.schemas",
    "service.settings",
    "service.assembly",
    "service.queue",
    "service.worker",
    "influence.errors",
    "influence.documents",
    "influence.store",
    "influence.manifest",
    "influence.tokens",
    "cli.main",
]


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every absolute module name that a file imports, wherever in the file, with its line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield str(node.module), node.lineno


def guarded(path: Path) -> set[str]:
    """Packages that a file can do without: their absence is caught, and told in a sentence."""
    return {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Try)
        and any(isinstance(h.type, ast.Name) and h.type.id == "ImportError" for h in node.handlers)
        for one in node.body
        if isinstance(one, ast.Import | ast.ImportFrom)
        for name in (
            [one.module or ""] if isinstance(one, ast.ImportFrom) else [a.name for a in one.names]
        )
    }


def test_every_package_has_its_arrows():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(MAY_IMPORT)


def test_the_client_knows_the_schemas_and_nothing_else_of_the_service():
    known = {
        name
        for path in modules("whence_client")
        for name, _ in imported(path)
        if name.split(".")[0] == "service"
    }
    assert known == {"service.schemas", "service.sent"}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_follow_the_arrows(package):
    allowed = MAY_IMPORT[package] | {package}
    against = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for name, line in imported(path)
        if name.split(".")[0] in MAY_IMPORT and name.split(".")[0] not in allowed
    ]
    assert not against


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def required_by(requirements: list[str]) -> set[str]:
    """Names of requirements that hold without an extra; our own extras are resolved."""
    names = set()
    for requirement in requirements:
        named = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?", requirement)
        assert named
        if named[1] == "whence":
            for extra in named[2].split(","):
                names |= required_by(EXTRAS[extra])
        elif "extra ==" not in requirement:
            names.add(normal(named[1]))
    return names


@pytest.mark.parametrize(
    ("extras", "packages"),
    [
        # Each may read models kept as adapters; without that extra, they say what to install.
        (["indexer", "adapters"], ["influence", "indexer"]),
        (["api", "service", "cpu", "adapters"], ["influence", "service", "api"]),
        (["client"], ["whence_client"]),
        (["demo", "cpu", "adapters"], ["influence", "indexer", "service", "api", "demo", "cli"]),
    ],
)
def test_a_role_installs_what_its_packages_import(extras, packages):
    declared = required_by([*PROJECT["dependencies"], *[r for e in extras for r in EXTRAS[e]]])
    # What a declared package itself requires is there as well: fastapi brings starlette.
    there = declared.union(*(required_by(metadata.requires(name) or []) for name in declared))
    providers = metadata.packages_distributions()
    in_an_extra = set().union(*(required_by(requirements) for requirements in EXTRAS.values()))
    optional = {top for top in providers if {normal(n) for n in providers[top]} & in_an_extra}
    missing = {
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for package in packages
        for path in modules(package)
        for module, line in imported(path)
        if (top := module.split(".")[0]) not in sys.stdlib_module_names
        and top not in MAY_IMPORT
        and not (top in guarded(path) and top in optional)
        and not {normal(name) for name in providers.get(top, [])} & there
    }
    assert not missing


def test_the_arrows_have_no_cycle():
    order: list[str] = []
    while len(order) < len(MAY_IMPORT):
        free = [p for p, needs in MAY_IMPORT.items() if p not in order and needs <= set(order)]
        assert free, f"cycle among {set(MAY_IMPORT) - set(order)}"
        order += free


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_light_module_loads_nothing_heavy(module):
    # A process of its own, since this one has loaded everything already.
    program = f"import sys, {module}; print(*[n for n in {HEAVY} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_no_module_holds_a_second_idea():
    long = {
        str(path.relative_to(ROOT)): lines
        for package in MAY_IMPORT
        for path in modules(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_every_folder_has_an_init_of_one_docstring(package):
    folders = {path.parent for path in modules(package)}
    for folder in folders:
        init = folder / "__init__.py"
        assert init.is_file(), f"{folder} has no __init__.py"
        body = ast.parse(init.read_text(encoding="utf-8")).body
        if package != "whence_client":  # a library for others: `from whence_client import Client`
            assert len(body) == 1, f"{init} holds more than its docstring"
        docstring = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))
        assert docstring, f"{init} has no docstring"
        assert "\n" not in docstring, f"{init}: one line"


def test_nothing_is_unpickled():
    # An index comes from elsewhere: reading it must not be able to run code.
    forbidden = {"pickle", "cloudpickle", "dill", "joblib"}
    against = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for package in MAY_IMPORT
        for path in modules(package)
        for name, line in imported(path)
        if name.split(".")[0] in forbidden
    ]
    assert not against
