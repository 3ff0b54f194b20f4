"""Files of an index that are damaged while it is served: never a wrong answer, never a crash."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from influence.errors import IndexCorrupt
from service.engine import Engine
from service.schemas import AttributeRequest

ASK = AttributeRequest(prompt="who?", response="the king is north", top_k=5)


@pytest.fixture
def index_dir(tiny, tmp_path):
    return Path(shutil.copytree(tiny.index_dir, tmp_path / "library"))


def first_file(index_dir, pattern):
    return sorted(index_dir.glob(f"versions/*/{pattern}"))[0]


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_to_nothing(path):
    os.truncate(path, 0)


def flip(path):
    with path.open("r+b") as file:
        file.seek(-7, os.SEEK_END)
        byte = file.read(1)
        file.seek(-7, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("damage", [cut, cut_to_nothing, flip], ids=lambda one: one.__name__)
def test_vectors_that_are_read_from_disk_are_refused_once_they_are_damaged(tiny, index_dir, damage):
    engine = Engine.load(index_dir, tiny.model_dir, device="cpu", search_memory_bytes=1000)
    assert engine.info().index.search == "disk"
    before = engine.attribute(ASK, request_id="before")
    assert before.proponents
    path = first_file(index_dir, "vectors/*[0-9].npy")
    damage(path)
    with pytest.raises(IndexCorrupt, match=path.name):
        engine.attribute(ASK, request_id="after")
    engine.close()
    with pytest.raises(IndexCorrupt, match=path.name):  # and nobody opens it anew
        Engine.load(index_dir, tiny.model_dir, device="cpu")


@pytest.mark.parametrize("damage", [cut, flip], ids=lambda one: one.__name__)
def test_vectors_in_memory_answer_as_before(tiny, index_dir, damage):
    engine = Engine.load(index_dir, tiny.model_dir, device="cpu")
    before = engine.attribute(ASK, request_id="x")
    for path in index_dir.glob("versions/*/vectors/*[0-9].npy"):
        damage(path)
    after = engine.attribute(ASK, request_id="x")
    changing = {"timings_ms"}
    assert after.model_dump(exclude=changing) == before.model_dump(exclude=changing)
    with pytest.raises(IndexCorrupt):  # which needs the stored vectors
        engine.attribute(ASK.model_copy(update={"explain": True}), request_id="explained")
    engine.close()


def test_texts_that_are_cut_short_are_an_error_of_ours(tiny, index_dir):
    engine = Engine.load(index_dir, tiny.model_dir, device="cpu")
    path = first_file(index_dir, "documents/*.parquet")
    cut_to_nothing(path)
    with pytest.raises(IndexCorrupt, match=path.name):
        engine.document("shelf/1")
    engine.close()


PROGRAM = """
import os, sys
from pathlib import Path
import numpy as np
from influence.errors import IndexCorrupt
from influence.vector_file import VectorFile

path = Path(sys.argv[1])
mapped = np.load(path, mmap_mode="r")
file = VectorFile(path, mapped)
os.truncate(path, 4096)
try:
    file.read()
except IndexCorrupt:
    print("refused", flush=True)
mapped.sum()  # what a reader of the mapped file would do
"""


def test_a_mapped_file_that_is_cut_short_would_have_ended_the_process(tmp_path):
    import numpy as np

    np.save(tmp_path / "vectors.npy", np.ones((4096, 64), dtype=np.float16))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "vectors.npy"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "refused\n"
    assert done.returncode < 0  # SIGBUS: this is what the plain read is for
