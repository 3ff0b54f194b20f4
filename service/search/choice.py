"""Which search serves an index: by size and memory, unless told; and what if it misses too much.

What is tried, the first that fits the memory:

    a GPU, where FAISS has one
    float32      4 bytes a number, exact
    float16      2, exact
    sq8          1, the best rows compared again
    rabitq       about a quarter, the best rows compared again
    disk         next to nothing, exact; every query reads the whole index
"""

import logging
from dataclasses import dataclass

import faiss

from influence.errors import IndexUnavailable, InvalidInput
from influence.store import IndexReader
from service.search.backend import Search
from service.search.candidates import CandidateSearch, sampled_rows
from service.search.derived import (
    KINDS,
    Derived,
    damaged_structures,
    load_or_build,
    save,
)
from service.search.exact import PART_BYTES, ExactSearch, Precision, available_threads
from service.search.int8 import RESCORED, Int8Search, int8_codes
from service.search.rabitq import RaBitQ, rabitq_bytes, rabitq_codes
from service.search.recall import best_by, own_queries, recall
from service.search.stored import StoredRows
from service.settings import SEARCHES

log = logging.getLogger(__name__)

RECALL_AT = 10
_WIDTHS = (200, 400, 800, 1600, 3200)  # candidates to compare again; the first that recalls enough


@dataclass(frozen=True)
class Opened:
    """A search, and what people must know of how it was chosen; None: nothing."""

    search: Search
    notice: str | None = None


def open_search(
    reader: IndexReader,
    *,
    wanted: str = "auto",
    memory_bytes: int = 8 * 2**30,
    min_recall: float = 0.98,
    threads: int | None = None,
) -> Opened:
    """Open the search of an index.

    Args:
        reader: The index.
        wanted: One of `service.settings.SEARCHES`, or the ``milvus://`` address of a server.
        memory_bytes: Most memory for vectors and codes.
        min_recall: Recall@10 below which an inexact search is not used but an exact one.
        threads: That work on one query; all cores by default.

    Raises:
        InvalidInput: There is no such way.
        IndexUnavailable: What was asked for does not fit the memory, or is not here.
    """
    if wanted.startswith("milvus"):
        from service.search.milvus import open_milvus  # an extra that most do without

        return Opened(open_milvus(reader, wanted))
    if wanted not in SEARCHES:
        raise InvalidInput(
            f"{wanted!r} is no way to search. Choose one of {', '.join(SEARCHES)}, or the address "
            "of a Milvus: milvus://HOST:PORT."
        )
    kind = _chosen(reader, memory_bytes) if wanted == "auto" else wanted
    _check_room(kind, reader, memory_bytes)
    stored = StoredRows(reader.vector_files())
    if kind == "gpu":
        from service.search.gpu import open_gpu

        return Opened(open_gpu(stored, reader.norms))
    if kind in KINDS:
        search = _inexact(kind, reader, stored, min_recall, threads)
        if search.recall is not None and search.recall >= min_recall:
            return Opened(search)
        search.close()
        exact = _exact("exact", reader, memory_bytes, threads)
        notice = (
            f"{kind} finds {search.recall:.3f} of the best {RECALL_AT} on this index's own queries "
            f"and {min_recall} is asked for, so every row is compared ({exact.name})."
        )
        log.warning(notice)
        return Opened(exact, notice)
    return Opened(_exact(kind, reader, memory_bytes, threads))


def repair_searches(
    reader: IndexReader, *, min_recall: float = 0.98, threads: int | None = None
) -> tuple[str, ...]:
    """Make the damaged search structures of a version again (`service.search.derived`).

    Returns:
        The ways to search whose structures were damaged.

    Raises:
        StorageFull: The folder cannot be written.
    """
    stored = StoredRows(reader.vector_files())
    damaged = damaged_structures(reader)
    for kind in damaged:
        save(reader, kind, _derived(kind, reader, stored, min_recall, threads))
    return damaged


def _sizes(reader: IndexReader) -> dict[str, int]:
    """Bytes of each way, in the order in which they are tried."""
    rows, dims = len(reader), reader.dims
    return {
        "float32": 4 * rows * dims,
        "float16": 2 * rows * dims,
        "sq8": rows * (dims + 4),
        "rabitq": rabitq_bytes(rows, dims) + 2 * dims * len(sampled_rows(rows)),
        "disk": 0,
    }


def _chosen(reader: IndexReader, memory_bytes: int) -> str:
    if getattr(faiss, "get_num_gpus", lambda: 0)() > 0:
        return "gpu"
    return next(kind for kind, size in _sizes(reader).items() if size <= memory_bytes)


def _check_room(kind: str, reader: IndexReader, memory_bytes: int) -> None:
    size = _sizes(reader).get(kind, 0)
    if size > memory_bytes:
        raise IndexUnavailable(
            f"Search by {kind} takes {size:,} bytes for this index, and may use {memory_bytes:,}. "
            "Raise WHENCE_SEARCH_MEMORY_BYTES, or leave the choice to WHENCE_SEARCH=auto."
        )


def _exact(kind: str, reader: IndexReader, memory_bytes: int, threads: int | None) -> ExactSearch:
    sizes = _sizes(reader)
    ways: tuple[Precision, ...] = ("float32", "float16", "disk")
    precision: Precision = next(
        w for w in ways if kind in ("exact", w) and sizes[w] <= memory_bytes
    )
    threads = threads or available_threads()
    # A part is read by each thread, and in a matrix product lies beside its float32 copy.
    part_bytes = max(2 * reader.dims, min(PART_BYTES, memory_bytes // (4 * threads)))
    return ExactSearch(
        reader.vector_files(),
        reader.norms,
        precision=precision,
        threads=threads,
        part_bytes=part_bytes,
    )


def _inexact(
    kind: str, reader: IndexReader, stored: StoredRows, min_recall: float, threads: int | None
) -> Search:
    def build() -> Derived:
        return _derived(kind, reader, stored, min_recall, threads)

    return _opened(kind, load_or_build(reader, kind, build), reader, stored, threads)


def _opened(
    kind: str, derived: Derived, reader: IndexReader, stored: StoredRows, threads: int | None
) -> Search:
    if kind == "sq8":
        return Int8Search(
            derived.arrays, stored, reader.norms, recall=derived.recall, threads=threads
        )
    return CandidateSearch(
        "rabitq",
        RaBitQ(derived.arrays, stored.rows, stored.dims, threads=threads),
        stored,
        reader.norms,
        rescored=derived.rescored,
        recall=derived.recall,
    )


def _derived(
    kind: str, reader: IndexReader, stored: StoredRows, min_recall: float, threads: int | None
) -> Derived:
    """Codes of all rows, and how much of the best the search by them finds."""
    norms = reader.norms
    arrays = int8_codes(stored) if kind == "sq8" else rabitq_codes(stored, norms)
    queries = own_queries(stored)
    exact = ExactSearch(reader.vector_files(), norms, precision="disk", threads=threads)
    truth = best_by(exact, stored, queries, RECALL_AT)
    exact.close()
    measured = Derived(arrays=arrays, rescored=RESCORED, recall=0.0)
    for width in (RESCORED,) if kind == "sq8" else _WIDTHS:
        measured = measured.model_copy(update={"rescored": width})
        search = _opened(kind, measured, reader, stored, threads)
        reached = recall(truth, best_by(search, stored, queries, RECALL_AT))
        search.close()
        measured = measured.model_copy(update={"recall": reached})
        if reached >= min_recall:
            break
    return measured
