"""`whence evaluate` at a size of seconds."""

import json

from typer.testing import CliRunner

from cli.main import app
from evaluation.catalogue import methods_of


def run(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_methods_are_compared_shown_and_written(tmp_path):
    done = run("methods", "--task", "digits", "--small", "--cache", tmp_path, "--out", tmp_path)
    assert done.exit_code == 0, done.output
    table = (tmp_path / "methods-digits.md").read_text()
    assert table in done.stdout
    content = json.loads((tmp_path / "methods-digits.json").read_text())
    assert [row["method"] for row in content["rows"]] == [m.name for m in methods_of("digits")]
    assert all(-1 <= row["lds"]["mean"] <= 1 for row in content["rows"])


def test_an_unknown_task_is_a_usage_error(tmp_path):
    done = run("methods", "--task", "poems", "--cache", tmp_path)
    assert done.exit_code == 2
    assert "'poems' is not one of language, digits, cnn, tumours, diabetes and all" in " ".join(
        done.output.replace("│", " ").split()
    )
