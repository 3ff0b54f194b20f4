"""`whence keys` as people run it."""

import json
import sys

import pytest

from cli.main import main
from influence.errors import Unauthenticated
from service.keys import KeyRing


@pytest.fixture
def whence(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder; its status, output and what it said beside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WHENCE_KEYS_FILE", raising=False)

    def run(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["whence", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def test_a_key_is_made_listed_and_revoked(whence, tmp_path):
    status, token, said = whence(
        "keys", "create", "--name", "Alice's notebook", "--scope", "read", "--scope", "write",
        "--expires-days", "90", "--owner", "Anna", "--requests-per-minute", "60",
    )  # fmt: skip
    assert status == 0
    assert token.startswith("whence_")
    assert token.strip() not in said
    key_id = token.split("_")[1]
    _, listed, _ = whence("keys", "list")
    for part in (key_id, "valid", "read+write", "Alice's notebook", "60 a minute", "owners Anna"):
        assert part in listed
    _, as_json, _ = whence("keys", "list", "--json")
    assert json.loads(as_json)["id"] == key_id
    assert "sha256" not in as_json
    ring = KeyRing(tmp_path / "keys.json")
    ring.authenticate(token.strip())
    assert "revoked" in whence("keys", "revoke", key_id)[1]
    with pytest.raises(Unauthenticated):
        ring.authenticate(token.strip())
    assert "revoked" in whence("keys", "list")[1]


def test_what_is_changed_is_in_the_audit_log(whence, monkeypatch, tmp_path):
    monkeypatch.setenv("WHENCE_AUDIT_LOG", str(tmp_path / "audit"))
    _, token, _ = whence("keys", "create", "--name", "a")
    whence("keys", "revoke", token.split("_")[1])
    whence("keys", "revoke", "nobody")
    entries = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    told = [(entry["what"].split()[0], entry["outcome"]) for entry in entries]
    assert told == [
        ("create", "begun"),
        ("create", "done"),
        ("revoke", "begun"),
        ("revoke", "done"),
        ("revoke", "begun"),
        ("revoke", "failed: NotFound"),
    ]
    assert token.split("_", 2)[2].strip() not in (tmp_path / "audit").read_text()


def test_the_file_may_come_from_the_environment(whence, tmp_path, monkeypatch):
    monkeypatch.setenv("WHENCE_KEYS_FILE", str(tmp_path / "elsewhere" / "k.json"))
    whence("keys", "create", "--name", "a")
    assert (tmp_path / "elsewhere" / "k.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["create"], 2, "--name"),
        (["create", "--name", ""], 1, "name is ''"),
        (["create", "--name", "a", "--scope", "root"], 2, "root"),
        (["create", "--name", "a", "--expires-days", "0"], 2, "--expires-days"),
        (["create", "--name", "a", "--expires-days", "99999999999"], 2, "--expires-days"),
        (["create", "--name", "a", "--owner", ""], 1, "owners"),
        (["list"], 1, "whence keys create"),
        (["revoke", "x"], 1, "keys.json"),
    ],
)
def test_a_wrong_call_is_one_sentence_and_its_status(whence, arguments, status, told):
    code, printed, said = whence("keys", *arguments)
    assert printed == ""
    if status == 1:
        assert isinstance(code, str)
        assert code.startswith("error: ")
        assert told in code
    else:
        assert code == status
        assert told in said
