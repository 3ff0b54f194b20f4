"""Appending: once, in order, with a clock that never goes back."""

import random
import threading

import numpy as np
import pytest

from influence.errors import InvalidInput, LedgerUnavailable
from service.ledger.chain import GENESIS, entry_hash, unpack_totals
from service.ledger.ledger import Ledger
from service.ledger.retention import erase_requests
from service.ledger.verify import verify_ledger

ANY = {None: -0.25, "Anna": 1.5, "Bruno": 0.1, "Chloe": -1e-9}


def test_the_totals_that_come_out_are_those_that_went_in_to_the_last_bit(ledger, owners, entry):
    ledger.append([owners(), entry("a", ANY)])
    (_, stored) = ledger.read()
    found = unpack_totals(stored.totals, 4)
    assert dict(zip((None, "Anna", "Bruno", "Chloe"), found.tolist(), strict=True)) == ANY
    single = {name: float(np.float32(total)) for name, total in ANY.items()}
    ledger.append([entry("b", single)])
    stored = ledger.entry("request:b")
    assert len(stored.totals) == 16  # what float32 holds takes four bytes
    assert unpack_totals(stored.totals, 4).tolist() == list(single.values())


def test_every_hash_stands_on_the_one_before(filled):
    previous = GENESIS
    for number, entry in enumerate(filled.read(), start=1):
        assert entry.sequence == number
        said = (entry.kind, entry.key, entry.time_us, entry.body, entry.weight, entry.owner_set)
        assert entry.hash == entry_hash(previous, number, *said, entry.totals)
        previous = entry.hash
    assert filled.head().hash == previous


def test_what_is_delivered_twice_is_written_once(ledger, owners, entry):
    batch = [owners(), entry("a", ANY), entry("b", ANY)]
    assert ledger.append(batch) == 3
    assert ledger.append(batch) == 0
    assert ledger.append([*batch, entry("c", ANY), entry("c", ANY)]) == 1


def test_a_request_asked_again_is_one_entry_and_another_query_under_its_id_is_two(
    ledger, owners, entry
):
    ledger.append([owners(), entry("a", ANY, text="heron")])
    assert ledger.append([entry("a", ANY, text="heron", time_us=1)]) == 0
    assert ledger.append([entry("a", ANY, text="otter"), entry("a", ANY, text="goat")]) == 2
    assert ledger.append([entry("a", ANY, text="goat", time_us=2)]) == 0
    assert [e.key for e in ledger.of_request("a")] == ["request:a", "request:a~2", "request:a~3"]


def test_a_spool_replayed_after_an_erasure_doubles_nothing(ledger, owners, entry):
    spooled = [owners(), entry("a", ANY)]
    ledger.append(spooled)
    erase_requests(ledger, ["a"])
    assert ledger.append(spooled) == 0


def test_a_clock_that_goes_back_does_not_take_the_chain_with_it(ledger, owners, entry):
    ledger.append([owners()])
    ledger.append([entry(f"r{t}", ANY, time_us=t) for t in (2 * 10**15, 10**15, 3 * 10**15)])
    times = [e.time_us for e in ledger.read(2)]
    assert times == [2 * 10**15, 2 * 10**15, 3 * 10**15]
    verify_ledger(ledger)


def test_a_period_is_one_range_of_the_chain(ledger, owners, entry):
    start = owners().time_us
    draw = random.Random(1)
    happened = [draw.randrange(20) for _ in range(12)]
    late = [entry(f"r{i}", ANY, time_us=start + t) for i, t in enumerate(happened)]
    ledger.append([owners(), *late])
    stored = list(ledger.read())
    for begin, end in [(-5, 0), (0, 1), (3, 17), (5, 5), (9, 30), (19, 20), (40, 50)]:
        first, last = ledger.range_of(start + begin, start + end)
        within = [e.sequence for e in stored if begin <= e.time_us - start < end]
        assert list(range(first, last + 1)) == within


def test_a_failed_append_leaves_nothing(ledger, owners, entry):
    ledger.append([owners()])
    before = ledger.head()
    stranger = owners(("", "Dora"))
    unknown = entry("b", {None: 1.0, "Dora": 2.0}, owners=stranger)
    with pytest.raises(ValueError, match="append them first"):
        ledger.append([entry("a", ANY), unknown])
    assert ledger.head() == before
    assert ledger.entry("request:a") is None


def test_several_writers_make_one_chain(url, owners, entry, in_child):
    Ledger(url, create=True).close()

    def work(name: str) -> None:
        draw = random.Random(name)
        own = Ledger(url)
        own.append([owners()])
        for number in range(30):
            own.append([entry(f"{name}{number}", {n: draw.random() for n in ANY})])

    def both() -> None:
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert in_child(both) == (0, "")
    ledger = Ledger(url)
    assert verify_ledger(ledger).attributions == 60
    ledger.close()


@pytest.mark.parametrize(
    "text", ["mysql://localhost/x", "sqlite://", "no-such://x", "sqlite:///:memory:"]
)
def test_what_is_no_ledger_is_refused_by_name(text):
    with pytest.raises(InvalidInput, match="SQLite file"):
        Ledger(text)


def test_a_ledger_that_is_not_there_is_not_made_by_reading(tmp_path):
    with pytest.raises(LedgerUnavailable, match="no ledger at"):
        Ledger(str(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_said_to_be_unusable(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(LedgerUnavailable, match="cannot be used"):
        Ledger(str(path))


def test_a_password_is_not_told(tmp_path):
    with pytest.raises(LedgerUnavailable) as error:
        Ledger("postgresql://anna:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value)


def test_a_ledger_of_a_newer_version_is_refused(url):
    ledger = Ledger(url, create=True)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    ledger.close()
    with pytest.raises(LedgerUnavailable, match="newer version"):
        Ledger(url)
