import json
import logging

import numpy as np
import pytest

from influence.errors import IndexUnavailable, InvalidInput
from influence.store import IndexReader
from service.search.backend import Sought
from service.search.choice import open_search
from service.search.derived import FOLDER


@pytest.fixture
def reader(tiny, tmp_path):
    """An index of its own, since a search leaves files in it."""
    import shutil

    shutil.copytree(tiny.index_dir, tmp_path / "index")
    return IndexReader.open(tmp_path / "index")


def opened(reader, **chosen):
    found = open_search(reader, threads=2, **chosen)
    found.search.close()
    return found


def test_the_way_follows_the_memory(reader):
    rows, dims = len(reader), reader.dims
    for memory, name, exact in (
        (4 * rows * dims, "float32", True),
        (4 * rows * dims - 1, "float16", True),
        (2 * rows * dims - 1, "sq8", False),
        (rows * dims - 1, "disk", True),  # of so few rows the sample alone is larger than the codes
    ):
        search = opened(reader, memory_bytes=memory, min_recall=0).search
        assert (search.name, search.exact) == (name, exact)


@pytest.mark.parametrize("wanted", ["exact", "sq8", "rabitq"])
def test_what_is_asked_for_is_used(reader, wanted):
    found = opened(reader, wanted=wanted)
    assert found.search.name == {"exact": "float32"}.get(wanted, wanted)
    assert found.search.exact == (wanted == "exact")
    assert found.notice is None
    # 200 rows are compared again and there are fewer, so none can be missed.
    assert found.search.recall == (None if wanted == "exact" else 1.0)


def test_what_is_asked_for_and_does_not_fit_is_refused(reader):
    with pytest.raises(IndexUnavailable, match=r"sq8.*may use 10\..*WHENCE_SEARCH_MEMORY_BYTES"):
        open_search(reader, wanted="sq8", memory_bytes=10)
    assert opened(reader, wanted="exact", memory_bytes=10).search.name == "disk"


def test_a_way_that_does_not_exist_is_refused(reader):
    with pytest.raises(InvalidInput, match=r"'faiss'.*rabitq"):
        open_search(reader, wanted="faiss")


def test_without_a_gpu_a_gpu_is_refused(reader):
    with pytest.raises(IndexUnavailable, match="faiss-gpu"):
        open_search(reader, wanted="gpu")


def test_a_search_that_misses_too_much_gives_way_to_an_exact_one_and_says_so(reader, caplog):
    with caplog.at_level(logging.WARNING):
        found = opened(reader, wanted="rabitq", min_recall=1.1)
    assert found.search.exact
    assert found.notice in caplog.text
    assert "1.000" in found.notice
    assert "1.1" in found.notice


def test_codes_are_kept_and_used_again(reader):
    opened(reader, wanted="rabitq")
    folder = reader.directory / FOLDER / "rabitq"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert "record.json" in before
    opened(reader, wanted="rabitq")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def change_source(folder):
    record = json.loads((folder / "record.json").read_text())
    record["source_sha256"] = "0" * 64
    (folder / "record.json").write_text(json.dumps(record))


def change_codes(folder):
    codes = np.load(folder / "codes.npy")
    codes[:] = 0
    np.save(folder / "codes.npy", codes)


@pytest.mark.parametrize(
    "spoil",
    [
        change_source,
        change_codes,
        lambda folder: (folder / "record.json").write_text("{"),
        lambda folder: (folder / "record.json").unlink(),
        lambda folder: (folder / "codes.npy").unlink(),
    ],
    ids=["of other vectors", "altered", "no record", "record missing", "array missing"],
)
@pytest.mark.parametrize("kind", ["sq8", "rabitq"])
def test_codes_that_are_not_of_these_vectors_are_made_anew(reader, kind, spoil):
    opened(reader, wanted=kind)
    folder = reader.directory / FOLDER / kind
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    spoil(folder)
    opened(reader, wanted=kind)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == good


def test_where_the_folder_cannot_be_written_the_search_works_all_the_same(reader, caplog):
    (reader.directory / FOLDER).write_text("in the way")
    found = open_search(reader, wanted="rabitq", threads=1)
    vector = reader.vectors([3])[0]
    [answer] = found.search.search([Sought(vector, 1)])
    assert answer.proponents.rows.tolist() == [3]
    assert "is not kept" in caplog.text
    found.search.close()


@pytest.mark.parametrize("wanted", ["exact", "sq8", "rabitq"])
@pytest.mark.parametrize("ranking", ["relative", "influence"])
def test_every_way_gives_the_same_answers(tiny, wanted, ranking):
    from service.schemas import AttributeRequest

    def ask(engine, **fields):
        request = AttributeRequest(
            prompt="where is the king?", response="the king is north", ranking=ranking, **fields
        )
        answer = engine.attribute(request, request_id="test")
        return answer, [
            (hit.passage_id, pytest.approx(hit.influence, rel=1e-4, abs=1e-6), hit.confidence)
            for hit in (*answer.proponents, *answer.opponents)
        ]

    engine, other = tiny.engine(), tiny.engine(search=wanted)
    info = other.info().index
    assert info.exact == (wanted == "exact")
    assert info.search_recall == (None if wanted == "exact" else 1.0)
    for fields in ({}, {"filter": {"owners": ["Anna"]}}, {"filter": {"sources": ["upper"]}}):
        expected, got = ask(engine, **fields), ask(other, **fields)
        assert got[0].index.exact == (wanted == "exact")
        assert [hit[:2] for hit in got[1]] == [hit[:2] for hit in expected[1]]
        # All rows are in the sample of so small an index; int8 moves the spread by a hundredth.
        assert [hit[2] for hit in got[1]] == pytest.approx(
            [hit[2] for hit in expected[1]], abs=0.05
        )
    engine.close()
    other.close()
