"""Whatever is done to a ledger behind its back is found, and named."""

import pytest
from sqlalchemy import text

from influence.errors import LedgerBroken, NotFound
from service.ledger.ledger import Ledger
from service.ledger.retention import erase_before, erase_requests
from service.ledger.verify import verify_ledger


def tamper(ledger: Ledger, *statements: str) -> None:
    with ledger.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def test_an_untouched_ledger_holds(filled):
    verified = verify_ledger(filled)
    assert (verified.entries, verified.attributions) == (21, 20)
    assert (verified.kept, verified.erased) == (20, 0)
    assert verified.head == filled.head().hash.hex()


CHANGES = {
    "time": "UPDATE entries SET time_us = time_us + 1 WHERE sequence = 7",
    "weight": "UPDATE entries SET weight = 2 WHERE sequence = 7",
    "key": "UPDATE entries SET key = 'request:x' WHERE sequence = 7",
    "kind": "UPDATE entries SET kind = 'alias' WHERE sequence = 7",
    "body": "UPDATE entries SET body = replace(body, 'tokens', 'spoken') WHERE sequence = 7",
    "totals": "UPDATE entries SET totals = (SELECT totals FROM entries WHERE sequence = 8) "
    "WHERE sequence = 7",
    "owners": "UPDATE entries SET owner_set = 2 WHERE sequence = 7",
    "hash": "UPDATE entries SET hash = (SELECT hash FROM entries WHERE sequence = 8) "
    "WHERE sequence = 7",
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_to_any_column_is_found(filled, what):
    tamper(filled, CHANGES[what])
    with pytest.raises(LedgerBroken, match=r"Entry 7 .* was changed"):
        verify_ledger(filled)


def test_a_missing_entry_is_found(filled):
    tamper(filled, "DELETE FROM entries WHERE sequence = 7")
    with pytest.raises(LedgerBroken, match="Entry 7 is missing"):
        verify_ledger(filled)


def test_entries_that_changed_places_are_found(filled):
    tamper(
        filled,
        "UPDATE entries SET sequence = 1000 WHERE sequence = 7",
        "UPDATE entries SET sequence = 7 WHERE sequence = 8",
        "UPDATE entries SET sequence = 8 WHERE sequence = 1000",
    )
    with pytest.raises(LedgerBroken, match=r"Entry 7 .* is not where it was"):
        verify_ledger(filled)


def test_a_tail_that_was_cut_off_is_found(filled):
    tamper(filled, "DELETE FROM entries WHERE sequence > 15")
    with pytest.raises(LedgerBroken, match="ends at entry 15"):
        verify_ledger(filled)


def test_a_tail_cut_off_with_its_head_is_found_by_a_hash_that_was_told(filled):
    head = filled.head()
    tamper(
        filled,
        "DELETE FROM entries WHERE sequence > 15",
        "UPDATE head SET sequence = 15, hash = (SELECT hash FROM entries WHERE sequence = 15)",
    )
    verify_ledger(filled)  # nothing in the ledger tells
    with pytest.raises(LedgerBroken, match="before the expected entry 21"):
        verify_ledger(filled, expected_head=(head.sequence, head.hash.hex()))


def test_a_chain_written_anew_is_found_by_a_hash_that_was_told(filled):
    with pytest.raises(LedgerBroken, match="written anew"):
        verify_ledger(filled, expected_head=(10, "00" * 32))


def test_a_text_that_was_not_asked_is_found(filled):
    tamper(filled, "UPDATE texts SET text = replace(text, 't4', 'zz') WHERE sequence = 6")
    with pytest.raises(LedgerBroken, match="beside entry 6"):
        verify_ledger(filled)


def test_erasing_takes_text_and_salt_and_leaves_the_chain_whole(filled):
    before = filled.head()
    assert erase_requests(filled, ["r3", "r4"]) == 2
    verified = verify_ledger(filled, expected_head=(before.sequence, before.hash.hex()))
    assert (verified.kept, verified.erased) == (18, 2)
    (noted,) = filled.events("erasure")
    assert noted.content == {"entries": [5, 6], "erased": 2}
    assert erase_before(filled, 2**62) == 18
    assert verify_ledger(filled).kept == 0
    assert erase_before(filled, 2**62) == 0  # nothing left, nothing noted


def test_nothing_is_erased_when_one_request_is_unknown(filled):
    with pytest.raises(NotFound, match="'r99'"):
        erase_requests(filled, ["r3", "r99"])
    assert verify_ledger(filled).kept == 20


def test_what_is_erased_is_in_no_file_any_more(tmp_path, owners, entry, totals):
    import random

    ledger = Ledger(str(tmp_path / "ledger.db"), create=True)
    ledger.append([owners(), entry("a", totals(random.Random(0)), text="XsecretX")])
    files = lambda: b"".join(path.read_bytes() for path in tmp_path.iterdir())  # noqa: E731
    assert b"XsecretX" in files()
    erase_requests(ledger, ["a"])
    assert b"XsecretX" not in files()
    ledger.close()
