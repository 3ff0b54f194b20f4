"""Raw records out of files, one after the other, in constant memory.

Every reader yields `RawRecord`: where the record stands, the id it gets if it has none, and either
its fields or the reason why they could not be read. A file that cannot be read to its end raises
`OSError` or `pyarrow.ArrowInvalid`: what is behind the damage is lost, so that nothing is skipped.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_RECORD_BYTES = 1 << 28  # a line beyond this is a file without line breaks
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class RawRecord:
    """One record of a file.

    Attributes:
        where: Line or row, counted from 1, as in "line 3"; empty where a file is one record.
        default_id: Id of the record if it names none itself.
        fields: What the record holds.
        fault: Why it cannot be read at all; ``fields`` is None then.
    """

    where: str
    default_id: str
    fields: Any = None
    fault: str | None = None


Reader = Callable[[Path, str], Iterator[RawRecord]]  # (file, stem of the ids)


def read_jsonl(path: Path, stem: str) -> Iterator[RawRecord]:
    """One JSON object a line, decompressed if need be; empty lines are passed over."""
    with _open(path) as stream:
        number = 0
        while line := stream.readline(MAX_RECORD_BYTES):
            number += 1
            where, default_id = f"line {number}", f"{stem}:{number}"
            if len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = stream.readline(MAX_RECORD_BYTES)
                fault = f"it is longer than {MAX_RECORD_BYTES:,} bytes"
                yield RawRecord(where, default_id, fault=fault)
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                # NaN is how some writers put a value that is not there.
                fields = json.loads(line.decode(), parse_constant=lambda _: None)
            except UnicodeDecodeError as error:
                fault = f"its byte {error.start + 1} is no valid UTF-8"
                yield RawRecord(where, default_id, fault=fault)
            except json.JSONDecodeError as error:
                fault = f"it is not JSON ({error.msg} at character {error.pos + 1})"
                yield RawRecord(where, default_id, fault=fault)
            except (ValueError, RecursionError) as error:  # a number or a nesting beyond limits
                yield RawRecord(where, default_id, fault=f"its JSON cannot be read ({error})")
            else:
                yield RawRecord(where, default_id, fields)


def _open(path: Path) -> io.BufferedReader:
    """The bytes of a file that may be compressed.

    Arrow's decompression, since it reports a truncated file and reads concatenated ones.
    """
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())
    with ExitStack() as stack:
        stream = stack.enter_context(pa.input_stream(path, compression=compression))
        stack.pop_all()
    return io.BufferedReader(stream, 1 << 20)  # type: ignore[arg-type]


def read_parquet(path: Path, stem: str) -> Iterator[RawRecord]:
    """One row each, batch by batch within the row groups."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        number = 0
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:  # some row of the batch: find out which
                rows = [_row(batch, i) for i in range(batch.num_rows)]
            for row in rows:
                number += 1
                where, default_id = f"row {number}", f"{stem}:{number}"
                if row is None:
                    yield RawRecord(where, default_id, fault="its text is no valid UTF-8")
                else:
                    yield RawRecord(where, default_id, row)


def _row(batch: pa.RecordBatch, index: int) -> dict[str, Any] | None:
    try:
        return batch.slice(index, 1).to_pylist()[0]
    except UnicodeDecodeError:
        return None


def read_csv(path: Path, stem: str) -> Iterator[RawRecord]:
    """One row each, the first naming the columns; an empty field is a field that is not there.

    ``messages`` and ``metadata`` hold JSON. Records are counted by the line on which they start.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)  # the default refuses a document of 128 KiB
    # Bytes that are no UTF-8 become lone surrogates, which make their own record a bad one.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header: list[str] | None = None
        while True:
            number = reader.line_num + 1
            where, default_id = f"line {number}", f"{stem}:{number}"
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield RawRecord(where, default_id, fault=f"it is no row of CSV ({error})")
                if header is None:
                    return
                continue
            if header is None:
                header = row
            elif len(row) > len(header):
                fault = f"it has {len(row)} fields and the header {len(header)}"
                yield RawRecord(where, default_id, fault=fault)
            elif row:
                fields: dict[str, Any] = {n: v for n, v in zip(header, row, strict=False) if v}
                yield _with_json(RawRecord(where, default_id, fields))


def _with_json(record: RawRecord) -> RawRecord:
    for name in ("messages", "metadata"):
        if name in record.fields:
            try:
                record.fields[name] = json.loads(record.fields[name], parse_constant=lambda _: None)
            except (ValueError, RecursionError) as error:
                fault = f"its column {name} is not JSON ({error})"
                return RawRecord(record.where, record.default_id, fault=fault)
    return record


def read_text(path: Path, stem: str) -> Iterator[RawRecord]:
    """The whole file is one document."""
    try:
        yield RawRecord("", stem, {"text": path.read_bytes().decode("utf-8-sig")})
    except UnicodeDecodeError as error:
        yield RawRecord("", stem, fault=f"its byte {error.start + 1} is no valid UTF-8")


READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".jsonl.zst": read_jsonl,
    ".parquet": read_parquet,
    ".csv": read_csv,
    ".txt": read_text,
}
