"""Documents that wait to be added, and who carries it out: real files and processes."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from influence.errors import Forbidden, NotFound, StorageFull
from influence.lock import sole_writer
from service import adding
from service.adding import Adder
from service.additions import Additions
from service.sent import AdditionRequest


def sent(*ids, owner=None, replace=False) -> AdditionRequest:
    documents = [{"id": one, "text": f"text of {one}", "owner": owner} for one in ids]
    return AdditionRequest.model_validate({"documents": documents, "replace": replace})


@pytest.fixture
def additions(tmp_path):
    return Additions(tmp_path / "additions")


@pytest.fixture
def accept(additions):
    return lambda request: additions.accept(request, by="me", owners=None)


@pytest.fixture
def carry_out(additions, tmp_path, monkeypatch):
    """Run an adder whose command is a shell script, until a condition holds."""
    monkeypatch.setattr(adding, "_LOOK_S", 0.02)
    monkeypatch.setattr(adding, "_RETRY_S", 0.02)

    def run(script, until, adders=1):
        async def scenario():
            def command(corpus, replace):
                return ["sh", "-c", script, "sh", str(corpus), str(replace)]

            working = [Adder(additions, tmp_path, command) for _ in range(adders)]
            for adder in working:
                await adder.start()
            while not until():
                await asyncio.sleep(0.02)
            for adder in working:
                await adder.close()

        asyncio.run(asyncio.wait_for(scenario(), 60))

    return run


def test_what_is_taken_is_added_in_its_order_and_its_state_says_where(
    additions, accept, carry_out, tmp_path
):
    names = [accept(sent(f"a{n}", f"b{n}")).id for n in range(3)]
    assert [additions.addition(name, by="me").state for name in names] == ["waiting"] * 3
    log = tmp_path / "log"
    script = f'cat "$1" >> {log}; echo "progress"; echo 000002-abc'

    def ended():
        return additions.addition(names[-1], by="me").state != "waiting"

    carry_out(script, ended, adders=3)  # of which one works
    for name in names:
        told = additions.addition(name, by="me")
        assert (told.state, told.version, told.documents) == ("done", "000002-abc", 2)
    added = [json.loads(line)["id"] for line in log.read_text().splitlines()]
    assert added == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert additions.next() is None


def test_what_cannot_be_added_says_why_and_the_next_goes_on(additions, accept, carry_out):
    bad, good = accept(sent("bad")).id, accept(sent("good", replace=True)).id
    script = (
        'if [ "$2" = True ]; then echo v2; else echo progress >&2; '
        'echo "error: the id is there already. Do this." >&2; exit 1; fi'
    )
    carry_out(script, lambda: additions.next() is None)
    assert additions.addition(bad, by="me").state == "failed"
    assert additions.addition(bad, by="me").detail == "the id is there already. Do this."
    assert additions.addition(good, by="me").version == "v2"


def test_a_process_that_ends_in_the_middle_leaves_the_addition_to_the_next(
    additions, accept, carry_out, tmp_path
):
    name, begun = accept(sent("a")).id, tmp_path / "begun"
    carry_out(f'echo "$1" >> {begun}; exec sleep 60', begun.exists)
    assert additions.addition(name, by="me").state == "waiting"
    carry_out(f'echo "$1" >> {begun}; echo v2', lambda: additions.next() is None)
    assert additions.addition(name, by="me").state == "done"
    first, second = begun.read_text().splitlines()
    assert Path(first).name == Path(second).name  # by which the command knows its own work


def test_while_somebody_builds_on_the_index_additions_wait(
    additions, accept, carry_out, tmp_path, caplog
):
    name = accept(sent("a")).id
    with sole_writer(tmp_path):
        carry_out("echo v2", lambda: "is being written to" in caplog.text)
    assert additions.addition(name, by="me").state == "waiting"
    carry_out("echo v2", lambda: additions.next() is None)
    assert additions.addition(name, by="me").state == "done"


def test_an_addition_is_told_to_the_key_that_sent_it_alone(additions, accept, carry_out):
    name = accept(sent("a")).id
    for known in (True, False):
        with pytest.raises(NotFound):
            additions.addition(name, by="somebody else")
        if known:
            carry_out("echo v2", lambda: additions.next() is None)
    for other in ("", "../keys", name + "/..", name[:-1], "x" * 300):
        with pytest.raises(NotFound):
            additions.addition(other, by="me")


def test_a_key_of_owners_adds_their_documents_and_replaces_nobodys(additions):
    mine = frozenset({"Anna"})
    assert additions.accept(sent("a", owner="Anna"), by="anna", owners=mine).state == "waiting"
    for request in (
        sent("a", owner="Bruno"),
        sent("a", owner=None),
        sent("a", owner="Anna", replace=True),
    ):
        with pytest.raises(Forbidden):
            additions.accept(request, by="anna", owners=mine)
    assert len(list(additions.folder.iterdir())) == 1


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        ([], "at least 1"),
        ([{"id": "a"}], "none of them"),
        ([{"id": "a", "text": "x", "prompt": "y"}], "text and prompt"),
        ([{"id": "a", "prompt": "y"}], "not prompt"),
        ([{"id": "a", "text": ""}], "at least 1"),
        ([{"id": "", "text": "x"}], "at least 1"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "comes twice"),
        ([{"id": "a", "text": "x", "unknown": 1}], "unknown"),
    ],
    ids=str,
)
def test_what_is_no_document_is_refused_before_it_is_taken(documents, says):
    with pytest.raises(ValidationError, match=says):
        AdditionRequest.model_validate({"documents": documents})


def test_a_full_disk_takes_nothing(disk):
    additions = Additions(disk.folder / "additions")
    disk.fill()
    with pytest.raises(StorageFull):
        [additions.accept(sent(*"abcdefgh"), by="me", owners=None) for _ in range(200)]
    whole = len(list(additions.folder.glob("*.request.json")))
    disk.free()
    while (name := additions.next()) is not None:  # every one that was acknowledged is whole
        additions.end(name, version="v2")
        whole -= 1
    assert whole == 0
    shutil.rmtree(additions.folder)
