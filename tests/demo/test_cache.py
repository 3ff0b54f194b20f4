import subprocess
import sys
from pathlib import Path

import pytest

from demo.cache import fingerprint, locked, new_folder
from influence.errors import BuildConflict, StorageFull


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    final = tmp_path / "model"
    with new_folder(final) as partial:
        (partial / "weights").write_bytes(b"1")
        assert not final.exists()
    assert (final / "weights").read_bytes() == b"1"
    assert list(tmp_path.iterdir()) == [final]


def test_a_step_that_fails_leaves_nothing(tmp_path):
    def fail(partial):
        (partial / "weights").write_bytes(b"1")
        raise RuntimeError

    with pytest.raises(RuntimeError), new_folder(tmp_path / "model") as partial:
        fail(partial)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_cleared_away(tmp_path):
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "half").write_bytes(b"1")
    with new_folder(tmp_path / "model") as partial:
        assert list(partial.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_one_clear_error():
    with pytest.raises(StorageFull, match="/proc/whence"), new_folder(Path("/proc/whence/model")):
        pass


def test_two_demos_do_not_share_a_cache_at_once(tmp_path):
    with locked(tmp_path):
        program = (
            "import sys; from pathlib import Path; from demo.cache import locked\n"
            "with locked(Path(sys.argv[1])): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            cwd=Path(__file__).resolve().parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "BuildConflict" in done.stderr
        assert str(tmp_path) in done.stderr
    with locked(tmp_path):
        pass


def test_in_one_process_the_lock_holds_as_well(tmp_path):
    with locked(tmp_path), pytest.raises(BuildConflict), locked(tmp_path):
        pass


def test_a_fingerprint_is_of_content_not_of_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
