"""Small corpora, written as people write them."""

import gzip
import json
from pathlib import Path

import pytest


@pytest.fixture
def write_jsonl(tmp_path):
    """Write records, one JSON object a line, under a name of the temporary folder."""

    def write(records, name="corpus.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(lines))
        elif name.endswith(".zst"):
            import pyarrow as pa

            with pa.output_stream(path, compression="zstd") as stream:
                stream.write(lines)
        else:
            path.write_bytes(lines)
        return path

    return write
