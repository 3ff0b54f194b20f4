"""Versions of the index that change under a server which is being asked, over a real engine."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from influence.removal import Selection, remove_documents
from influence.retention import clear_versions, roll_back
from influence.store import IndexReader
from influence.versions import current_version
from service.audit import AuditLog
from service.cache import MemoryCache
from service.caching import CachingAttributor
from service.engine import Engine
from service.keys import KeyRing, Scope, create_key
from service.local import LocalAttributor
from service.versions import ServedVersions

ASKED = {"prompt": "who?", "response": "the king of the river", "top_k": 50, "opponents": True}
NEVER = 3600.0  # seconds between looks: whatever changes then is what was asked for


@pytest.fixture
def folder(tiny, tmp_path) -> Path:
    return Path(shutil.copytree(tiny.index_dir, tmp_path / "library"))


@pytest.fixture
def serve(tiny, folder, until_ready):
    """A server of a copy of the index, in the shape that `whence serve` gives it."""
    clients = []

    def start(*, follow_s: float = NEVER, **settings) -> TestClient:
        local = LocalAttributor(lambda: Engine.load(folder, tiny.model_dir, device="cpu"))
        app = create_app(
            CachingAttributor(local, MemoryCache(2**20)),
            versions=ServedVersions(folder, local, follow_s=follow_s),
            **settings,
        )
        clients.append(TestClient(app, raise_server_exceptions=False))
        return until_ready(clients[-1].__enter__())

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def served(client) -> str:
    return client.get("/info").json()["index"]["version"]


def until_served(client, version: str) -> None:
    deadline = time.monotonic() + 60
    while served(client) != version:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def essence(answer: dict) -> dict:
    """What an answer says, without what differs from one time to the next."""
    return {key: answer[key] for key in ("index", "query", "proponents", "opponents", "owners")}


def documents_in(answer: dict) -> set[str]:
    return {hit["document_id"] for hit in answer["proponents"] + answer["opponents"]}


def expected_of(folder, version: str) -> tuple[set[str], set[str | None]]:
    """Every document and every owner of a version, read from the files."""
    reader = IndexReader.open(folder, version)
    documents = list(reader.documents())
    return {d.id for d in documents}, {d.owner for d in documents}


def test_versions_change_under_constant_requests_without_an_error_or_a_mixed_answer(serve, folder):
    """Ten swaps: every answer has all documents and owners of one of the versions."""
    whole = current_version(folder)
    removed = remove_documents(folder, Selection(owners=("Anna",))).version
    client = serve(follow_s=0.05)
    alone = {}
    for version in (whole, removed):
        roll_back(folder, version)
        until_served(client, version)
        alone[version] = client.post("/attribute", json=ASKED).json()
    assert {share["owner"] for share in alone[whole]["owners"]} - {
        share["owner"] for share in alone[removed]["owners"]
    } == {"Anna"}

    ending = threading.Event()

    def ask(number: int) -> list[dict]:
        answers = []
        while not ending.is_set():
            # Another prompt each time: nothing comes from the cache.
            asked = ASKED | {"prompt": f"who {number} {len(answers)}?"}
            answer = client.post("/attribute", json=asked)
            assert answer.status_code == 200, answer.text
            found = client.get("/documents/shelf/1")  # Bruno's, in both
            assert found.status_code == 200, found.text
            answers.append(answer.json())
        return answers

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(ask, number) for number in range(3)]
        try:
            for swap in range(10):
                wanted = (whole, removed)[swap % 2]
                if swap % 3:
                    roll_back(folder, wanted)
                    until_served(client, wanted)
                else:
                    done = client.post(f"/indexes/{wanted}/activate")
                    assert done.status_code == 200, done.text
                    assert served(client) == wanted
                time.sleep(0.1)  # so that this version is asked as well
        finally:
            ending.set()
        answers = [answer for one in asking for answer in one.result()]
    assert {answer["index"]["version"] for answer in answers} == {whole, removed}
    of = {version: expected_of(folder, version) for version in alone}
    for answer in answers:
        documents, owners = of[answer["index"]["version"]]
        assert documents_in(answer) == documents
        assert {share["owner"] for share in answer["owners"]} == owners
    # After it all, each version answers as it did before.
    for version, before in alone.items():
        assert client.post(f"/indexes/{version}/activate").status_code == 200
        again = client.post("/attribute", json=ASKED).json()
        assert essence(again) == essence(before)


def test_an_engine_that_was_replaced_is_closed_and_its_version_can_be_cleared_away(serve, folder):
    client = serve()
    removed = client.delete("/documents/shelf/1").json()["version"]
    client.post("/attribute", json=ASKED)
    deadline = time.monotonic() + 60  # closing takes its turn in the model's thread
    while not (cleared := clear_versions(folder, keep=0)).versions:
        assert time.monotonic() < deadline, cleared
        time.sleep(0.02)
    assert current_version(folder) == removed == served(client)
    assert client.post("/attribute", json=ASKED).status_code == 200


def test_a_document_that_was_removed_is_in_no_answer_from_then_on(serve, tmp_path):
    client = serve(audit=AuditLog(tmp_path / "audit"))
    before = client.post("/attribute", json=ASKED).json()
    assert "shelf/5" in documents_in(before)
    done = client.delete("/documents/shelf/5")
    assert done.status_code == 200, done.text
    assert done.json() == {"id": "shelf/5", "version": served(client), "passages": 1}
    after = client.post("/attribute", json=ASKED).json()  # the same question: not from the cache
    assert documents_in(before) - documents_in(after) == {"shelf/5"}
    assert not after["cached"]
    assert client.get("/documents/shelf/5").status_code == 404
    assert client.delete("/documents/shelf/5").status_code == 404
    written = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert [(e["what"], e["outcome"]) for e in written] == [
        ("DELETE /documents/shelf/5", "begun"),
        ("DELETE /documents/shelf/5", "done"),
        ("DELETE /documents/shelf/5", "begun"),
        ("DELETE /documents/shelf/5", "failed: NotFound"),
    ]


def test_the_last_document_stays(serve, folder, tiny, is_problem):
    others = [record["id"] for record in tiny.records if record["id"] != "shelf/0"]
    remove_documents(folder, Selection(documents=others))
    client = serve()
    version = served(client)
    is_problem(client.delete("/documents/shelf/0"), 422, "invalid-input")
    assert served(client) == current_version(folder) == version


def test_the_versions_are_listed_and_the_one_served_is_activated_without_doing_anything(
    serve, folder
):
    first = current_version(folder)
    client = serve()
    second = client.delete("/documents/long text").json()["version"]
    (folder / "versions" / first / "manifest.json").write_text("{}")
    listed = client.get("/indexes").json()
    assert listed["index"] == "library"
    ids = ("id", "documents", "current", "served")
    assert [tuple(one[key] for key in ids) for one in listed["versions"]] == [
        (first, None, False, False),
        (second, 36, True, True),
    ]
    stamp = (folder / "CURRENT").stat()
    again = client.post(f"/indexes/{second}/activate")
    assert (again.status_code, again.json()) == (200, listed)
    assert (folder / "CURRENT").stat() == stamp


@pytest.mark.parametrize(
    "version", ["000009-000000000000", "%2e%2e", "..%2f..", "CURRENT", "x" * 500]
)
def test_a_version_that_is_not_there_is_404(serve, is_problem, version):
    client = serve()
    before = served(client)
    kind = None if "%2f" in version else "not-found"  # with a slash it is another path
    is_problem(client.post(f"/indexes/{version}/activate"), 404, kind)
    assert served(client) == before


def test_a_damaged_version_is_refused_by_name_and_the_present_one_goes_on(
    serve, folder, is_problem, caplog
):
    first = current_version(folder)
    client = serve(follow_s=0.05)
    second = client.delete("/documents/shelf/5").json()["version"]
    manifest = folder / "versions" / first / "manifest.json"
    sound = manifest.read_bytes()
    manifest.write_bytes(sound + b" ")
    said = is_problem(client.post(f"/indexes/{first}/activate"), 503, "index-corrupt")
    assert "manifest.json" in said["detail"]
    assert current_version(folder) == served(client) == second
    # Nor is it followed, and the log says so once, not at every look.
    (folder / "CURRENT").write_text(f"{first}\n")
    deadline = time.monotonic() + 60
    while first not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # several looks
    assert caplog.text.count(f"{first} is not served") == 1
    assert client.post("/attribute", json=ASKED).json()["index"]["version"] == second
    # What cannot be served as it is now cannot be changed either: nothing is removed unseen.
    is_problem(client.delete("/documents/shelf/6"), 503, "index-corrupt")


def test_a_disk_that_takes_nothing_is_507_and_nothing_changes(serve, folder, is_problem):
    client = serve()
    before = served(client)
    (folder / ".changes.lock").unlink(missing_ok=True)
    (folder / ".changes.lock").mkdir()  # in the way of a file that must be written
    is_problem(client.delete("/documents/shelf/5"), 507, "storage-full")
    assert served(client) == before
    assert client.get("/documents/shelf/5").status_code == 200


def test_only_an_administrator_changes_an_index_and_one_of_owners_only_their_documents(
    serve, folder, tmp_path, is_problem
):
    def key(*scopes: Scope, owners=None) -> dict[str, str]:
        _, secret = create_key(
            tmp_path / "keys.json",
            name="a",
            scopes=frozenset(scopes),
            owners=owners,
            now=datetime.now(UTC),
        )
        return {"Authorization": f"Bearer {secret}"}

    reader, annas = key("read", "write"), key("admin", owners=("Anna",))
    client = serve(keys=KeyRing(tmp_path / "keys.json"))
    version = current_version(folder)
    for method, path in (
        ("DELETE", "/documents/shelf/0"),
        ("GET", "/indexes"),
        ("POST", f"/indexes/{version}/activate"),
    ):
        is_problem(client.request(method, path), 401, "unauthenticated")
        is_problem(client.request(method, path, headers=reader), 403, "forbidden")
    is_problem(client.post(f"/indexes/{version}/activate", headers=annas), 403, "forbidden")
    is_problem(client.delete("/documents/shelf/1", headers=annas), 404, "not-found")
    assert current_version(folder) == version
    assert client.delete("/documents/shelf/0", headers=annas).status_code == 200


def test_a_server_without_an_index_of_its_own_says_so(client, is_problem):
    for method, path in (("DELETE", "/documents/shelf/0"), ("GET", "/indexes")):
        is_problem(client.request(method, path), 404, "not-found")
