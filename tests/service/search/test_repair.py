"""Search structures come back with `whence verify --repair`, whenever it was killed."""

import random
import shutil
import signal

import pytest

from cli.inspect import verify
from influence.errors import IndexCorrupt
from influence.store import IndexReader
from influence.totals import OWNERS
from service.search.choice import open_search
from service.search.derived import FOLDER, KINDS, damaged_structures


@pytest.fixture
def searched(tiny, tmp_path):
    """An index with the codes of every way that has some."""
    shutil.copytree(tiny.index_dir, tmp_path / "index")
    reader = IndexReader.open(tmp_path / "index")
    for kind in KINDS:
        open_search(reader, wanted=kind, threads=1).search.close()
    return reader


def _files(index_dir) -> dict[str, bytes]:
    return {
        str(path.relative_to(index_dir)): path.read_bytes()
        for path in sorted(index_dir.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def test_damage_is_named_by_verify_and_gone_after_a_repair(searched, capsys):
    index = str(searched.index_dir)
    verify(index)
    whole = _files(searched.index_dir)
    codes = searched.directory / FOLDER / "rabitq" / "codes.npy"
    codes.write_bytes(codes.read_bytes()[:-1] + b"x")
    (searched.directory / FOLDER / "sq8" / "record.json").unlink()
    with pytest.raises(IndexCorrupt, match=r"search/sq8 and search/rabitq .*--repair"):
        verify(index)
    verify(index, repair=True)
    assert "search/sq8, search/rabitq had to be made again" in capsys.readouterr().out
    assert _files(searched.index_dir) == whole
    verify(index, repair=True)
    assert "nothing had to be made again" in capsys.readouterr().out


def test_what_is_not_there_is_not_made_by_a_repair(searched):
    shutil.rmtree(searched.directory / FOLDER / "sq8")
    assert damaged_structures(searched) == ()
    verify(str(searched.index_dir), repair=True)
    assert not (searched.directory / FOLDER / "sq8").exists()


def test_killed_at_random_operations_and_run_again_a_repair_ends_like_one_left_in_peace(
    searched, in_child, die_at
):
    index_dir, whole = searched.index_dir, _files(searched.index_dir)
    chance, killed = random.Random(5), 0
    for _ in range(6):
        (searched.directory / OWNERS).unlink()
        for kind in KINDS:
            (searched.directory / FOLDER / kind / "codes.npy").write_bytes(b"damaged")
        operation = chance.randrange(1, 25)
        code, said = in_child(
            lambda at=operation: die_at(at, index_dir, lambda: verify(str(index_dir), repair=True))
        )
        assert said == ""
        killed += code == -signal.SIGKILL
        for name, content in _files(index_dir).items():  # what is not derived was not touched
            if "search/" not in name and OWNERS not in name and name in whole:
                assert content == whole[name]
        verify(str(index_dir), repair=True)
        verify(str(index_dir))
        left = {n: c for n, c in _files(index_dir).items() if n in whole}
        assert left == whole
    assert killed >= 3
