"""Search by Milvus, beyond what one machine holds: its own distributed engine, exact (`FLAT`).

    milvus://HOST:PORT                   a server or a cluster
    milvus://USER:PASSWORD@HOST:PORT
    milvus+https://HOST:PORT             over TLS
    milvus:///FOLDER/FILE.db             milvus-lite, inside this process

A collection is named for the basis of the index, so vectors that cannot be compared never meet. Its
key is the id of the passage, which stays the same while rows come and go, and each entry has a
digest of all that it was made from, so `synchronise` sends what is new or changed, deletes what
is gone and leaves the rest. Owners and sources are fields, and filters are expressions over them.

Milvus names the best rows; their cosines are computed from the stored vectors, as everywhere.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from influence.errors import IndexUnavailable
from influence.store import IndexReader
from service.schemas import Filter
from service.search.backend import NO_ROWS, Found, Side, Sought, stacked
from service.search.candidates import sampled_rows
from service.search.stored import StoredRows, cosines_of
from service.search.top import top_rows

try:
    from pymilvus import DataType, MilvusClient, MilvusException
except ImportError as error:
    raise IndexUnavailable(
        "Search by Milvus needs the package pymilvus. Install whence[milvus], or choose another "
        "WHENCE_SEARCH."
    ) from error

TIMEOUT_S = 30.0
_MESSAGE_BYTES = 2**24  # of vectors in one insert; servers take messages up to 64 MB
_MARGIN = 8  # named beyond k: float32 sums in another order may swap rows that are equally good
_CHECKED = 64  # entries that are compared when a collection is opened
_FIELDS = {
    "passage": DataType.VARCHAR,
    "owner": DataType.VARCHAR,
    "source": DataType.VARCHAR,
    "digest": DataType.INT64,
    "vector": DataType.FLOAT_VECTOR,  # milvus-lite has no 16-bit vectors
}
_MOST_CHARACTERS = 65_535  # of a VARCHAR


def collection_of(reader: IndexReader) -> str:
    """Name of the collection of all indexes with the same basis."""
    return f"whence_{reader.manifest.files['basis.safetensors'].sha256[:24]}"


def synchronise(reader: IndexReader, address: str) -> tuple[int, int]:
    """Bring the collection to what the index holds; makes it if there is none.

    Returns:
        Entries sent and entries deleted.

    Raises:
        IndexUnavailable: Milvus cannot be reached, or the collection is of another kind.
    """
    with _speaking(address), _connected(address) as client:
        name = collection_of(reader)
        if not client.has_collection(name):
            _create(client, name, reader.dims)
        _check_schema(client, name, reader.dims)
        client.load_collection(name)
        there = _digests(client, name)
        ids = [reader.passage(row).id for row in range(len(reader))]
        gone = sorted(there.keys() - set(ids))
        sent = 0
        for entries in _batches(reader, np.arange(len(reader))):
            changed = [e for e in entries if there.get(e["passage"]) != e["digest"]]
            if changed:
                client.upsert(name, changed)
                sent += len(changed)
        for first in range(0, len(gone), 1000):
            client.delete(name, ids=gone[first : first + 1000])
        client.flush(name)
        return sent, len(gone)


def open_milvus(reader: IndexReader, address: str) -> "MilvusSearch":
    """The search of an index that was sent to Milvus before.

    Raises:
        IndexUnavailable: Milvus cannot be reached, has no such collection, one of another kind, or
            one that holds something else than the index.
    """
    name = collection_of(reader)
    with _speaking(address):
        client = _client(address)
        try:
            if not client.has_collection(name):
                raise _out_of_step(reader, address, "it has no collection of this index")
            _check_schema(client, name, reader.dims)
            client.load_collection(name)
            _check_contents(client, name, reader, address)
        except (MilvusException, IndexUnavailable):
            client.close()
            raise
    return MilvusSearch(client, name, reader, address)


class MilvusSearch:
    """`service.search.backend.Search` by a collection; see `open_milvus`."""

    name = "milvus"
    exact = True
    recall = None
    ranks_by_influence = False  # it holds unit vectors

    def __init__(self, client: MilvusClient, collection: str, reader: IndexReader, at: str) -> None:
        self._client, self._collection, self._address = client, collection, at
        self._stored = StoredRows(reader.vector_files())
        self.rows, self.dims = self._stored.rows, self._stored.dims
        self._row_of = {reader.passage(row).id: row for row in range(self.rows)}
        self._sample = self._stored.take_stored(sampled_rows(self.rows))

    def search(self, queries: Sequence[Sought]) -> list[Found]:
        """Search for several queries at once (`service.search.backend.Search.search`).

        Raises:
            ValueError: A ranking by influence is asked for.
            IndexUnavailable: Milvus does not answer.
        """
        stacked(queries, self.dims)
        if any(query.weighted for query in queries):
            raise ValueError("a search in Milvus ranks by the cosine alone.")
        return [self._found(query) for query in queries]

    def _found(self, query: Sought) -> Found:
        asked = [query.vector, -query.vector] if query.opponents else [query.vector]
        with _speaking(self._address):
            named = self._client.search(
                self._collection,
                data=[vector.tolist() for vector in asked],
                anns_field="vector",
                limit=min(query.k + _MARGIN, max(self.rows, 1)),
                filter=_expression(query.filter),
                search_params={"metric_type": "IP"},
                consistency_level="Strong",
                timeout=TIMEOUT_S,
            )
        sides = [self._side(query, hits, sign) for hits, sign in zip(named, (1, -1), strict=False)]
        proponents = sides[0]
        return Found(
            proponents=proponents,
            opponents=sides[1] if query.opponents else NO_ROWS,
            highest=float(proponents.cosines[0]) if len(proponents.cosines) else -1.0,
            sample=cosines_of(self._sample, query.vector),
        )

    def _side(self, query: Sought, hits: Any, sign: int) -> Side:
        # An entry that left the index since it was opened is not there for us either.
        rows = np.array(
            sorted({self._row_of[h["passage"]] for h in hits if h["passage"] in self._row_of}),
            dtype=np.int64,
        )
        cosines = self._stored.cosines(rows, query.vector)
        best = top_rows(np.float32(sign) * cosines, query.k)
        return Side(rows[best], cosines[best])

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _expression(wanted: Filter | None) -> str:
    """A filter in Milvus's language; names are quoted as JSON strings are."""
    if wanted is None:
        return ""
    parts = [
        f"{field} in [{', '.join(json.dumps(name, ensure_ascii=False) for name in names)}]"
        for field, names in (("owner", wanted.owners), ("source", wanted.sources))
        if names is not None
    ]
    return " and ".join(parts)


def _client(address: str) -> MilvusClient:
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme == "milvus" and not parts.netloc and parts.path.endswith(".db"):
        return MilvusClient(parts.path)
    if parts.scheme not in ("milvus", "milvus+https") or not parts.hostname or port is None:
        raise IndexUnavailable(
            f"{_shown(address)} is no address of a Milvus. Write milvus://HOST:PORT, "
            "milvus+https://HOST:PORT or milvus:///FOLDER/FILE.db."
        )
    protocol = "https" if parts.scheme == "milvus+https" else "http"
    token = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return MilvusClient(f"{protocol}://{parts.hostname}:{port}", token=token, timeout=TIMEOUT_S)


@contextmanager
def _connected(address: str) -> Iterator[MilvusClient]:
    client = _client(address)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _speaking(address: str) -> Iterator[None]:
    """Turn what Milvus's client raises into one sentence."""
    try:
        yield
    except MilvusException as error:
        raise IndexUnavailable(
            f"The Milvus at {_shown(address)} failed: {' '.join(str(error.message).split())}. See "
            "that it runs and can be reached from here, or choose another WHENCE_SEARCH."
        ) from error


def _shown(address: str) -> str:
    """An address without its password."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _create(client: MilvusClient, name: str, dims: int) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field, kind in _FIELDS.items():
        if kind == DataType.VARCHAR:
            more: dict[str, Any] = {"max_length": _MOST_CHARACTERS}
        else:
            more = {"dim": dims} if kind == DataType.FLOAT_VECTOR else {}
        schema.add_field(field, kind, is_primary=field == "passage", **more)
    parameters = client.prepare_index_params()
    parameters.add_index(field_name="vector", index_type="FLAT", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=parameters)


def _check_schema(client: MilvusClient, name: str, dims: int) -> None:
    described: Any = client.describe_collection(name)
    fields = described["fields"]
    found = {field["name"]: field["type"] for field in fields}
    width = [f["params"].get("dim") for f in fields if f["name"] == "vector"]
    if found != _FIELDS or [int(w or 0) for w in width] != [dims]:
        raise IndexUnavailable(
            f"The collection {name} in Milvus has the fields {sorted(found)} and vectors of "
            f"{width} dims; this version of Whence writes {sorted(_FIELDS)} and {dims}. Drop the "
            "collection and send the index again with `whence search-index`."
        )


def _check_contents(client: MilvusClient, name: str, reader: IndexReader, address: str) -> None:
    counted: Any = client.query(name, filter="", output_fields=["count(*)"])
    count = counted[0]["count(*)"]
    if count != len(reader):
        raise _out_of_step(
            reader, address, f"it holds {count} passages and the index {len(reader)}"
        )
    generator = np.random.default_rng(0)
    drawn = generator.choice(len(reader), min(_CHECKED, len(reader)), replace=False)
    for batch in _batches(reader, drawn):
        expected = {entry["passage"]: entry["digest"] for entry in batch}
        got: Any = client.get(name, ids=list(expected), output_fields=["digest"])
        if {entry["passage"]: entry["digest"] for entry in got} != expected:
            raise _out_of_step(reader, address, "its passages differ from those of the index")


def _out_of_step(reader: IndexReader, address: str, why: str) -> IndexUnavailable:
    shown = _shown(address)
    return IndexUnavailable(
        f"The Milvus at {shown} cannot search {reader.index_dir}: {why}. Bring it up to date with "
        f"`whence search-index {reader.index_dir} --search {shown}`."
    )


def _digests(client: MilvusClient, name: str) -> dict[str, int]:
    """Digest of every entry."""
    out: dict[str, int] = {}
    entries = client.query_iterator(name, batch_size=1000, output_fields=["passage", "digest"])
    while batch := entries.next():
        out |= {entry["passage"]: entry["digest"] for entry in batch}
    entries.close()
    return out


def _batches(reader: IndexReader, rows: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    """Entries of rows, so many at once as a message takes."""
    stored = StoredRows(reader.vector_files())
    size = max(1, _MESSAGE_BYTES // (4 * reader.dims))
    for first in range(0, len(rows), size):
        batch = rows[first : first + size]
        yield [
            _entry(
                reader.passage(int(row)).id,
                str(reader.row_owners[row]),
                str(reader.row_sources[row]),
                vector,
            )
            for row, vector in zip(batch, stored.take(batch), strict=True)
        ]


def _entry(passage: str, owner: str, source: str, vector: np.ndarray) -> dict[str, Any]:
    made_from = json.dumps([passage, owner, source]).encode() + vector.tobytes()
    digest = int.from_bytes(hashlib.sha256(made_from).digest()[:8], "little", signed=True)
    return {
        "passage": passage,
        "owner": owner,
        "source": source,
        "digest": digest,
        "vector": vector.tolist(),
    }
