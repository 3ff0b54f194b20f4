"""The file of keys: what it keeps, who gets in, and what happens to it when things go wrong."""

import ast
import inspect
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from influence.errors import InvalidInput, KeysUnavailable, NotFound, Unauthenticated
from service import keys
from service.keys import KeyRing, create_key, read_keys, revoke_key

NOW = datetime.now(UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "keys.json"


def make(path, **fields):
    return create_key(path, **{"name": "a", "scopes": frozenset({"read"}), "now": NOW, **fields})


def test_a_key_gets_in_and_says_what_it_may(path):
    made, token = make(
        path, scopes=frozenset({"write", "read"}), owners=("Anna",), requests_per_minute=5
    )
    found = KeyRing(path).authenticate(token)
    assert found == made == read_keys(path)[0]
    assert found.scopes == ("read", "write")
    assert (found.owners, found.requests_per_minute) == (("Anna",), 5)


def test_the_file_holds_no_secret(path):
    _, token = make(path)
    secret = token.split("_", 2)[2]
    assert len(secret) == 43  # 256 bits in base64
    assert secret not in path.read_text()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: "x",
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token.swapcase(),
        lambda token: token.replace("whence", "hence"),
        lambda token: "whence_000000000000_" + token.split("_", 2)[2],
        lambda token: "whence__",
        lambda token: "whence_é_\udcff\x00",
    ],
)
def test_anything_else_stays_out(path, spoil):
    _, token = make(path)
    with pytest.raises(Unauthenticated, match="not valid here"):
        KeyRing(path).authenticate(spoil(token))


def test_one_key_is_not_another_s_secret(path):
    first, _ = make(path)
    _, other = make(path)
    with pytest.raises(Unauthenticated):
        KeyRing(path).authenticate(f"whence_{first.id}_{other.split('_', 2)[2]}")


def test_an_expired_key_stays_out(path):
    _, gone = make(path, expires=NOW - timedelta(seconds=1))
    _, good = make(path, expires=NOW + timedelta(hours=1))
    ring = KeyRing(path)
    ring.authenticate(good)
    with pytest.raises(Unauthenticated, match="expired"):
        ring.authenticate(gone)


def test_what_the_command_line_changes_holds_from_the_next_request_on(path):
    first, token = make(path)
    ring = KeyRing(path)
    ring.authenticate(token)
    _, second = make(path)
    ring.authenticate(second)
    revoke_key(path, first.id, now=NOW)
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.authenticate(token)
    assert revoke_key(path, first.id, now=NOW + timedelta(days=1)).revoked == NOW


def test_a_key_that_is_not_there_cannot_be_revoked(path):
    make(path)
    with pytest.raises(NotFound, match="'x'"):
        revoke_key(path, "x", now=NOW)


def test_no_file_of_keys_lets_nobody_in(path):
    with pytest.raises(KeysUnavailable, match="whence keys create"):
        KeyRing(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 2, "keys": []}', '{"format": 1, "keys": [{"id": "x"}]}']
)
def test_a_file_that_becomes_unreadable_lets_nobody_in_until_it_is_put_right(path, content):
    _, token = make(path)
    ring = KeyRing(path)
    good = path.read_bytes()
    path.write_text(content)
    for _ in range(2):
        with pytest.raises(KeysUnavailable, match="cannot be read"):
            ring.authenticate(token)
    with pytest.raises(KeysUnavailable):
        make(path)
    assert path.read_text() == content  # what cannot be read is not written over
    path.write_bytes(good)
    ring.authenticate(token)
    path.unlink()
    with pytest.raises(KeysUnavailable):
        ring.authenticate(token)


def test_two_commands_at_once_lose_no_key(path):
    threads = [threading.Thread(target=make, args=(path,)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key.id for key in read_keys(path)}) == 16
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"scopes": frozenset()},
        {"scopes": frozenset({"root"})},
        {"owners": ()},
        {"owners": ("",)},
        {"requests_per_minute": 0},
    ],
    ids=str,
)
def test_a_key_out_of_bounds_is_refused(path, fields):
    with pytest.raises(InvalidInput, match="Correct it"):
        make(path, **fields)
    assert not path.exists()


def test_hashes_are_compared_in_constant_time_alone():
    comparisons = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(keys)))
        if isinstance(node, ast.Compare)
        and any("sha256" in ast.dump(n) or "_digest" in ast.dump(n) for n in ast.walk(node))
    ]
    assert comparisons == []
    assert "hmac.compare_digest(" in inspect.getsource(KeyRing.authenticate)


def test_the_file_is_plain_json(path):
    make(path)
    document = json.loads(path.read_text())
    assert document["format"] == 1
    assert set(document["keys"][0]) >= {"id", "name", "sha256", "scopes", "created"}
