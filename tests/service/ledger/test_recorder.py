"""What was acknowledged is in the ledger once, whatever became of the process."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from influence.errors import LedgerBroken, StorageFull
from service.ledger.chain import Pending
from service.ledger.ledger import Ledger
from service.ledger.recorder import Recorder
from service.ledger.spool import Spool
from service.ledger.verify import verify_ledger

ANY = {None: -0.25, "Anna": 1.5, "Bruno": 0.1, "Chloe": -1e-9}


def keys(url: str) -> list[str]:
    ledger = Ledger(url, create=True)
    found = [entry.key for entry in ledger.read() if entry.kind == "attribution"]
    verify_ledger(ledger)
    ledger.close()
    return found


def test_what_was_recorded_is_delivered_and_the_spool_is_empty(url, tmp_path, owners, entry):
    recorder = Recorder(url, tmp_path / "spool")
    for number in range(50):
        recorder.record(entry(f"r{number}", ANY), owners()).result(30)
    recorder.close()
    assert keys(url) == [f"request:r{number}" for number in range(50)]
    assert list((tmp_path / "spool").iterdir()) == []


def test_what_a_database_does_not_take_waits_in_the_spool_for_the_next_process(
    tmp_path, owners, entry
):
    url = str(tmp_path / "away" / "ledger.db")  # the folder is not there: it cannot be opened
    recorder = Recorder(url, tmp_path / "spool")
    recorder.record(entry("a", ANY), owners()).result(30)
    recorder.close()
    (tmp_path / "away").mkdir()
    recorder = Recorder(url, tmp_path / "spool")
    recorder.record(entry("b", ANY), owners()).result(30)
    recorder.close()
    assert keys(url) == ["request:a", "request:b"]


def test_a_line_that_was_being_written_is_left_out_and_damage_before_it_is_told(tmp_path):
    spool = Spool(tmp_path)
    spool.append([b"first", b"second", b"third"])
    spool.close()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for cut in range(1, len(b"third") + 10):
        path.write_bytes(whole[:-cut])
        spool = Spool(tmp_path)
        assert spool.files[0].undelivered(10) == ([b"first", b"second"], len(whole) - cut)
        spool.close()
    path.write_bytes(whole.replace(b"second", b"secund"))
    spool = Spool(tmp_path)
    with pytest.raises(LedgerBroken, match="damaged at byte 15"):
        spool.files[0].undelivered(10)
    spool.close()


def test_a_spool_of_a_living_process_is_left_to_it(tmp_path, in_child):
    spool = Spool(tmp_path)
    spool.append([b"mine"])

    def other() -> None:
        assert Spool(tmp_path).files == []

    assert in_child(other) == (0, "")
    spool.close()


def test_a_full_disk_lets_no_answer_leave_and_what_came_before_counts(
    tmp_path, owners, entry, in_child
):
    url = str(tmp_path / "ledger.db")

    def work() -> None:
        import resource

        Ledger(url, create=True).close()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        spool = Spool(tmp_path / "spool")
        spool.append([b"x" * 1000])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, -1))
        with pytest.raises(StorageFull, match="spool"):
            spool.append([b"y" * 1000])
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        spool.append([b"z"])
        lines, _ = spool.files[0].undelivered(10)
        assert lines == [b"x" * 1000, b"z"]

    assert in_child(work) == (0, "")


def test_the_ledger_has_what_was_acknowledged_before_during_and_after(
    disk, tmp_path, owners, entry
):
    url = str(tmp_path / "ledger.db")
    recorder = Recorder(url, disk.folder / "spool")
    acknowledged = []

    def record(name):
        recorder.record(entry(name, ANY), owners()).result(30)
        acknowledged.append(f"request:{name}")

    disk.fill()  # before the first entry, which would bring the owners along
    with pytest.raises(StorageFull):
        [record(f"full {number}") for number in range(1000)]
    disk.free()
    record("after")
    recorder.close()
    ledger = Ledger(url)
    verify_ledger(ledger)
    assert [one.key for one in ledger.read() if one.kind == "attribution"] == acknowledged
    ledger.close()


def record_until_killed(
    url: str, folder: Path, life: int, make: "tuple[Pending, object]", acknowledged: int
) -> None:
    """Threads that record as fast as they can and write down, unbuffered, what was acknowledged."""
    owners, entry = make
    recorder = Recorder(url, folder / "spool")

    def ask(name: str) -> None:
        for number in range(10**6):
            request_id = f"{life}-{name}-{number}"
            recorder.record(entry(request_id, ANY), owners).result()
            os.write(acknowledged, f"{request_id}\n".encode())

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    threads[0].join()


def test_killed_fifty_times_under_load_nothing_is_lost_and_nothing_doubled(
    url, tmp_path, owners, entry, start_in_child
):
    start, end = start_in_child
    draw = random.Random(0)
    log = tmp_path / "acknowledged"
    Ledger(url, create=True).close()
    for life in range(50):
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        child = start(
            lambda life=life, to=descriptor: record_until_killed(
                url, tmp_path, life, (owners(), entry), to
            )
        )
        os.close(descriptor)
        time.sleep(draw.uniform(0.02, 0.2))
        os.kill(child[0], signal.SIGKILL)
        assert end(*child)[0] == -signal.SIGKILL
    Recorder(url, tmp_path / "spool").close()  # the next process takes over what is left
    acknowledged = [f"request:{name}" for name in log.read_text().split()]
    found = keys(url)
    assert len(acknowledged) > 100  # there was load
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert not list((tmp_path / "spool").iterdir())
