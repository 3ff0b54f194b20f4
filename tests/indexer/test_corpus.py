"""Every kind of corpus gives the same documents; every kind of damage is named with its place."""

import csv
import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer import readers
from indexer.corpus import corpus_files, locate_corpus, read_corpus
from influence.documents import Document, Message
from influence.errors import CorpusError

RECORDS = [
    {"id": "a", "text": "Paris is the capital.\nGröße 🙂", "title": "T", "source": "S"},
    {"id": "b", "text": 'x, "y"\r\nz', "owner": "O", "licence": "L", "url": "https://a.example"},
    {"id": "c", "prompt": "Who?", "response": "Nobody.", "country": "France"},
]
DOCUMENTS = [
    Document("a", plain="Paris is the capital.\nGröße 🙂", title="T", source="S"),
    Document("b", plain='x, "y"\r\nz', owner="O", licence="L", url="https://a.example"),
    Document(
        "c",
        messages=(Message("user", "Who?"), Message("assistant", "Nobody.")),
        metadata={"country": "France"},
    ),
]
FIELDS = sorted({name for record in RECORDS for name in record})


def write_csv(path, records=RECORDS):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        writer.writerows(records)
    return path


def write_parquet(path, records=RECORDS):
    pq.write_table(pa.Table.from_pylist([dict.fromkeys(FIELDS) | r for r in records]), path)
    return path


def read(path, **options):
    return list(read_corpus(str(path), **options))


def error(path, **options):
    with pytest.raises(CorpusError) as caught:
        read(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz", "c.jsonl.zst", "C.JSONL"])
def test_jsonl_plain_or_compressed(write_jsonl, name):
    assert read(write_jsonl(RECORDS, name)) == DOCUMENTS


def test_csv_and_parquet_give_the_same_documents(tmp_path):
    assert read(write_csv(tmp_path / "c.csv")) == DOCUMENTS
    assert read(write_parquet(tmp_path / "c.parquet")) == DOCUMENTS


def test_a_dataset_saved_on_disk(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_list([dict.fromkeys(FIELDS) | r for r in RECORDS])
    rows.save_to_disk(tmp_path / "one")
    assert read(tmp_path / "one") == DOCUMENTS
    datasets.DatasetDict(test=rows.select([0]), train=rows).save_to_disk(tmp_path / "splits")
    assert read(tmp_path / "splits") == DOCUMENTS
    datasets.DatasetDict(x=rows, y=rows).save_to_disk(tmp_path / "no train")
    assert "the splits x, y" in error(tmp_path / "no train")


def test_a_named_dataset_is_streamed(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def load_dataset(name, *, streaming):
        assert streaming
        if name != "owner/facts":
            raise FileNotFoundError(f"{name} is not on the Hub")
        return {"train": iter(RECORDS)}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("owner/facts") == DOCUMENTS
    assert "owner/none is not on the Hub" in error("owner/none")


def test_a_text_file_is_one_document(tmp_path):
    path = tmp_path / "speech.txt"
    path.write_bytes("\ufeffMy fellow\r\ncitizens".encode())
    assert read(path) == [Document("speech", plain="My fellow\r\ncitizens")]


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path, write_jsonl):
    write_jsonl([{"text": "3"}], "folder/b/x.jsonl")
    write_jsonl([{"text": "1"}, {"text": "2"}], "folder/a/x.jsonl")
    write_jsonl([{"text": "no"}], "folder/.cache/x.jsonl")
    (tmp_path / "folder/z.txt").write_text("4")
    (tmp_path / "folder/README.md").write_text("about")
    documents = read(tmp_path / "folder")
    assert [(d.id, d.plain) for d in documents] == [
        ("a/x:1", "1"),
        ("a/x:2", "2"),
        ("b/x:1", "3"),
        ("z", "4"),
    ]
    assert [item.where for item in locate_corpus(tmp_path / "folder")] == [
        "folder/a/x.jsonl, line 1",
        "folder/a/x.jsonl, line 2",
        "folder/b/x.jsonl, line 1",
        "folder/z.txt",
    ]
    taken, passed_over = corpus_files(tmp_path / "folder")
    assert len(taken) == 3
    assert [path.name for path in passed_over] == ["README.md"]


def test_files_of_one_stem_number_their_records_apart(tmp_path, write_jsonl):
    write_jsonl([{"text": "1"}], "x.jsonl")
    write_csv(tmp_path / "x.csv", [{"text": "2"}])
    assert [d.id for d in read(tmp_path)] == ["x.csv:2", "x.jsonl:1"]


def test_ids_are_those_of_the_record_or_its_line(write_jsonl):
    path = write_jsonl([{"id": 7, "text": "a"}, {"text": "b"}, {"id": None, "text": "c"}])
    assert [d.id for d in read(path)] == ["7", "corpus:2", "corpus:3"]


def test_messages_and_metadata(tmp_path, write_jsonl):
    turns = [{"role": "system", "content": ""}, {"role": "user", "content": "a", "name": "n"}]
    turns.append({"role": "assistant", "content": "b"})
    record = {
        "messages": turns,
        "license": "MIT",
        "metadata": {"n": 1, "nan": None},
        "n": 2,
        "m": [],
    }
    (document,) = read(write_jsonl([record]))
    assert [(m.role, m.content) for m in document.messages] == [
        ("system", ""),
        ("user", "a"),
        ("assistant", "b"),
    ]
    assert document.licence == "MIT"
    assert document.metadata == {"n": 1, "nan": None, "m": []}
    path = tmp_path / "c.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["messages", "metadata"])
        writer.writerow([json.dumps(turns), json.dumps({"n": 1})])
        writer.writerow(["[", ""])
    documents = read_corpus(path)
    assert next(documents).messages == document.messages
    with pytest.raises(CorpusError, match=r"c.csv, line 3: its column messages is not JSON"):
        next(documents)


def test_values_that_json_does_not_know_are_made_plain(tmp_path):
    from datetime import date

    table = pa.table(
        {
            "text": ["a"],
            "day": [date(2026, 1, 2)],
            "raw": [b"123"],
            "x": [float("nan")],
            "l": [[1.5]],
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    (document,) = read(tmp_path / "c.parquet")
    assert document.metadata == {"day": "2026-01-02", "raw": "<3 bytes>", "x": None, "l": [1.5]}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "it is not JSON"),
        ("[]", "it is a list, not an object"),
        ("{}", "no field at all"),
        ('{"body": "x"}', "but only body"),
        ('{"text": ""}', "its text is empty"),
        ('{"text": " \\n"}', "its text is empty"),
        ('{"text": 5}', "its text is 5, not a string"),
        ('{"text": NaN}', "it has no text"),
        ('{"text": "a", "prompt": "b", "response": "c"}', "text and prompt and response"),
        ('{"prompt": "b"}', "a prompt alone"),
        ('{"prompt": "b", "response": " "}', "its response is empty"),
        ('{"messages": {}}', "its messages are an object, not a list"),
        ('{"messages": []}', "nothing that the assistant says"),
        ('{"messages": ["a"]}', "message 0 is text, not an object"),
        ('{"messages": [{"role": "user"}]}', "the content of its message 0 is missing"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "nothing that the assistant says"),
        ('{"text": "a", "id": ""}', "its id is empty"),
        ('{"text": "a", "id": true}', "its id is True"),
        ('{"text": "a", "title": ["b"]}', "its title is a list, not a string"),
        ('{"text": "a", "metadata": "b"}', "its metadata is text, not an object"),
        ('{"text": "a", "licence": "b", "license": "c"}', "'b' and its license 'c'"),
        ('{"text": "a\\ud800"}', "no valid UTF-8"),
        ('{"text": "a", "x": {"y": "\\udfff"}}', "no valid UTF-8"),
        ('{"text": ' + "9" * 5000 + "}", "its JSON cannot be read"),
        ("[" * 100_000, "its JSON cannot be read"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line_or_skipped(tmp_path, line, says):
    path = tmp_path / "c.jsonl"
    path.write_text(f'{{"text": "good"}}\n\n{line}\n{{"text": "after"}}\n')
    assert (message := error(path)).startswith("c.jsonl, line 3: ")
    assert says in message
    assert "--skip-bad-records" in message
    told = []
    documents = read(path, skip_bad_records=True, on_bad=told.append)
    assert [(d.id, d.plain) for d in documents] == [("c:1", "good"), ("c:4", "after")]
    assert len(told) == 1
    assert says in told[0]


def test_invalid_utf_8_is_a_bad_record_of_every_format(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n{"text": "b"}\n')
    (tmp_path / "c.csv").write_bytes(b"text\na\n\xff\nb\n")
    (tmp_path / "c.txt").write_bytes(b"ab\xff")
    strings = pa.array([b"a", b"\xff", b"b"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": strings}), tmp_path / "c.parquet")
    for name, place in {"jsonl": "line 2", "csv": "line 3", "parquet": "row 2"}.items():
        assert f"c.{name}, {place}: it" in (message := error(tmp_path / f"c.{name}"))
        assert "no valid UTF-8" in message
        documents = read(tmp_path / f"c.{name}", skip_bad_records=True)
        assert [d.plain for d in documents] == ["a", "b"]
    assert "c.txt: its byte 3 is no valid UTF-8" in error(tmp_path / "c.txt")


def test_rows_of_csv_that_are_none(tmp_path):
    path = tmp_path / "c.csv"
    path.write_bytes(b'text,title\n"a\nb",T\nc,d,e\nf\n"g"h,i\n"open')
    told = []
    documents = read(path, skip_bad_records=True, on_bad=told.append)
    assert [(d.id, d.plain, d.title) for d in documents] == [
        ("c:2", "a\nb", "T"),
        ("c:5", "f", None),
    ]
    assert [line.split(":")[0] for line in told] == [f"c.csv, line {n}" for n in (4, 6, 7)]
    assert "3 fields and the header 2" in told[0]


def test_a_long_field_of_csv_and_a_line_without_end(tmp_path, monkeypatch):
    long = "word " * 100_000
    write_csv(tmp_path / "c.csv", [{"text": long}])
    assert read(tmp_path / "c.csv")[0].plain == long
    monkeypatch.setattr(readers, "MAX_RECORD_BYTES", 1000)
    (tmp_path / "c.jsonl").write_text(f'{{"text": "{long}"}}\n{{"text": "after"}}\n')
    assert "line 1: it is longer than 1,000 bytes" in error(tmp_path / "c.jsonl")
    assert [d.plain for d in read(tmp_path / "c.jsonl", skip_bad_records=True)] == ["after"]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((f"c.{kind}", "truncated") for kind in ("jsonl.gz", "jsonl.zst", "parquet")),
        *((f"c.{kind}", "other") for kind in ("jsonl.gz", "jsonl.zst", "parquet")),
        ("c.jsonl.gz", "flipped"),  # the other two carry a checksum only if their writer wants it
    ],
)
def test_a_damaged_file_is_an_error_even_when_bad_records_are_skipped(
    tmp_path, write_jsonl, name, damage
):
    records = [{"text": f"{i * 7919 % 1000} and so on"} for i in range(2000)]
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(records), path, compression="zstd")
    else:
        write_jsonl(records, name)
    content = bytearray(path.read_bytes())
    assert len(read(path)) == 2000
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 3] ^= 0xFF
        path.write_bytes(content)
    else:
        path.write_bytes(b"something else altogether")
    message = error(path, skip_bad_records=True)
    assert message.startswith(f"{name} cannot be read: ")
    assert "Check that the file is whole" in message


def test_nothing_to_read_says_what_to_give(tmp_path, write_jsonl):
    assert "There is no corpus" in error(tmp_path / "missing.jsonl")
    assert "owner/name" in error("no such thing")
    assert "holds no document" in error(write_jsonl([]))
    (tmp_path / "empty").mkdir()
    assert "no file of a corpus" in error(tmp_path / "empty")
    (tmp_path / "c.docx").write_text("x")
    assert "no kind of file" in error(tmp_path / "c.docx")
    bad = write_jsonl([{"text": ""}, {}], "bad.jsonl")
    message = error(bad, skip_bad_records=True)
    assert "None of the 2 records" in message
    assert "bad.jsonl, line 1: its text is empty" in message


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    def peak(lines):
        path = tmp_path / "c.jsonl"
        path.write_text("".join(f'{{"text": "{"word " * 600}"}}\n' for _ in range(lines)))
        tracemalloc.start()
        assert sum(1 for _ in read_corpus(path)) == lines
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(3000) < 1.5 * peak(600)
