"""The threat model is true: each of its lines is held by a test that exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_line_of_the_threat_model_names_a_test_that_exists():
    defined = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    rows = [line for line in MODEL.splitlines() if line.startswith("| ")]
    threats = [row for row in rows if not row.startswith("| threat ")]
    assert len(threats) > 25
    for row in threats:
        named = re.findall(r"`(test_\w+)`", row.split("|")[3])
        assert named, row
        assert set(named) <= defined, set(named) - defined


def test_remote_code_is_a_matter_of_one_place():
    """Only the loader of models tells transformers whether to trust; others pass a name on."""
    for package in ("influence", "indexer", "service", "api", "evaluation", "demo", "cli"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                    assert isinstance(node.value, ast.Name | ast.Attribute), path
                    assert "from_pretrained" not in path.read_text(encoding="utf-8"), path
                if isinstance(node, ast.Constant) and node.value == "trust_remote_code":
                    assert path == ROOT / "influence" / "model.py", path
