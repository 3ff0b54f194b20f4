import errno
import hashlib
import os
import stat

import pytest

from influence.atomic import (
    TEMPORARY,
    file_sha256,
    flush_to_disk,
    replacing,
    storage_errors,
    write_bytes,
)
from influence.errors import StorageFull


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new and longer")
        assert path.read_bytes() == b"old"  # until the very end
        assert temporary.parent == path.parent  # a rename cannot cross file systems
        assert temporary.match(TEMPORARY)
    assert path.read_bytes() == b"new and longer"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("old", [None, b"old"])
def test_after_an_exception_everything_is_as_it_was(tmp_path, old):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)

    def fail():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old


def test_nothing_is_renamed_before_it_is_on_disk(tmp_path, monkeypatch):
    """The order is: content, fsync of it, rename, fsync of the folder."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        calls.append("fsync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "fsync")
        fsync(descriptor)

    def note_replace(*names):
        calls.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_bytes(tmp_path / "file", b"content")
    assert calls == ["fsync", "rename", "fsync folder"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "the disk is full. Free some space"),
        (errno.EDQUOT, "quota is used up. Free some space"),
        (errno.EFBIG, "larger than is allowed"),
        (errno.EACCES, "no permission to write there. Choose another folder"),
        (errno.EROFS, "read-only. Choose another folder"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_what_the_system_says_becomes_a_sentence(tmp_path, code, words):
    error = OSError(code, os.strerror(code))
    with pytest.raises(StorageFull, match=words) as raised, storage_errors(tmp_path / "x"):
        raise error
    assert str(tmp_path / "x") in str(raised.value)
    assert raised.value.__cause__ is error


def test_other_errors_pass(tmp_path):
    with pytest.raises(KeyError), storage_errors(tmp_path):
        raise KeyError


def test_a_folder_that_is_a_file_is_said_to_be_one(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFull, match="a file is in the way"):
        write_bytes(tmp_path / "file" / "inside", b"")


def test_sha256_is_that_of_the_bytes(tmp_path):
    content = os.urandom(300_000)
    write_bytes(tmp_path / "file", content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
    flush_to_disk(tmp_path)
