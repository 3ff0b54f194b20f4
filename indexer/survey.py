"""One pass over the corpus before anything expensive: is it sound, how large, and a fair sample.

- **Fingerprint**: sha256 over the documents in their order, whatever file format they came in.
- **Ids** must be unique. Eight bytes a document are kept, a hash of its id; only where two hashes
  agree is the corpus read once more, to name the id and its two places.
- **Sample** for the curvature fit: every passage draws a number, a keyed hash of its id, and those
  with the lowest are the sample. It is uniform without replacement, in random order, and depends
  on seed and passages alone, not on the order in which they come.
"""

import hashlib
import heapq
import logging
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from indexer.corpus import corpus_files, locate_corpus
from indexer.hub import is_saved_dataset
from indexer.passages import cut_corpus
from indexer.progress import Reporter
from indexer.records import canonical_json
from indexer.units import Numbered, Place
from influence.errors import CorpusError
from influence.manifest import CorpusIdentity
from influence.tokens import Passage

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

NAMED = 5  # of the records left out, so many are named
NOTE_EVERY_S = 10.0


@dataclass(frozen=True)
class LeftOut:
    """Records that are no part of the index: how many, and the first few with the reason."""

    count: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class Survey:
    """What a corpus holds.

    Attributes:
        documents: Documents that can be used, those without a target token among them.
        passages: Rows that the index will have.
        tokens: Tokens of the passages, the context they repeat included.
        target_tokens: Tokens that carry loss.
        fingerprint: sha256 of the documents.
        sample: Passages for the curvature fit, in random order.
        units: Where each shard begins (`indexer.units`).
        skipped: Bad records.
        without_target: Documents in which there is no token to predict.
    """

    documents: int
    passages: int
    tokens: int
    target_tokens: int
    fingerprint: str
    sample: list[Passage]
    units: tuple[Place, ...]
    skipped: LeftOut
    without_target: LeftOut

    def identity(self, name: str) -> CorpusIdentity:
        """What the manifest says of the corpus."""
        return CorpusIdentity(
            name=name,
            fingerprint=self.fingerprint,
            documents=self.documents,
            passages=self.passages,
            tokens=self.tokens,
            target_tokens=self.target_tokens,
        )


def survey_corpus(
    corpus: str | Path,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    fit_passages: int,
    shard_passages: int,
    seed: int,
    skip_bad_records: bool = False,
    reporter: Reporter,
) -> Survey:
    """Read the whole corpus once, in constant memory beside the sample.

    Args:
        corpus: A file, a folder or a dataset (`indexer.corpus.read_corpus`).
        tokenizer: The model's own.
        max_length: Tokens of a passage at most.
        fit_passages: Size of the sample; the whole corpus where it has no more.
        shard_passages: Rows of a shard.
        seed: Of the sample.
        skip_bad_records: Count and name bad records instead of stopping at the first.
        reporter: Told how far the work is, and of what is left out.

    Raises:
        CorpusError: The corpus cannot be read or is empty, one of its records is bad, an id occurs
            twice, or no document has a token to predict.
    """
    digest = hashlib.sha256()
    ids = array("Q")
    skipped, without_target = _Tally(), _Tally()
    draw = _Sample(fit_passages, seed)
    passages = tokens = target_tokens = 0
    units: list[Place] = []
    noted = time.monotonic()
    located = Numbered(locate_corpus(corpus, skip_bad_records=skip_bad_records, on_bad=skipped.add))
    for item, cut in cut_corpus(
        located,
        tokenizer,
        max_length=max_length,
        skip_bad_records=skip_bad_records,
        on_bad=skipped.add,
    ):
        digest.update(canonical_json(item.document) + b"\n")
        ids.append(_id_hash(item.document.id))
        if not cut:
            without_target.add(f"{item.where}: {item.document.id!r} has no token to predict")
        for number, passage in enumerate(cut):
            if passages % shard_passages == 0:
                units.append((located.number, number))
            passages += 1
            tokens += len(passage.tokens)
            target_tokens += sum(passage.tokens.targets)
            draw.add(passage)
        if time.monotonic() - noted >= NOTE_EVERY_S:
            noted = time.monotonic()
            reporter.note(f"Reading the corpus: {len(ids):,} documents, {tokens:,} tokens")
    _check_ids(ids, corpus, skip_bad_records=skip_bad_records)
    if not passages:
        raise CorpusError(
            f"No document of {corpus} has a token to predict; {'; '.join(without_target.first)}. "
            "Give longer texts."
        )
    survey = Survey(
        documents=len(ids),
        passages=passages,
        tokens=tokens,
        target_tokens=target_tokens,
        fingerprint=digest.hexdigest(),
        sample=draw.taken(),
        units=tuple(units),
        skipped=skipped.left_out(),
        without_target=without_target.left_out(),
    )
    _report(survey, corpus, reporter)
    return survey


class _Tally:
    """Counts what is left out and remembers the first few."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, what: str) -> None:
        self.count += 1
        if len(self.first) < NAMED:
            self.first.append(what)

    def left_out(self) -> LeftOut:
        return LeftOut(self.count, tuple(self.first))


class _Sample:
    """The ``size`` passages of the lowest draws."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._key = seed.to_bytes(16, "little", signed=True)
        # Negative draws, so that the highest is on top; the count keeps passages of one id (a
        # duplicate, which is reported at the end) from being compared.
        self._heap: list[tuple[int, int, Passage]] = []
        self._count = 0

    def add(self, passage: Passage) -> None:
        draw = hashlib.blake2b(passage.id.encode(), digest_size=8, key=self._key).digest()
        self._count += 1
        entry = (-int.from_bytes(draw, "little"), self._count, passage)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[0] > self._heap[0][0]:
            heapq.heapreplace(self._heap, entry)

    def taken(self) -> list[Passage]:
        return [passage for *_, passage in sorted(self._heap, key=lambda entry: -entry[0])]


def _id_hash(document_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "little")


def _check_ids(ids: array, corpus: str | Path, *, skip_bad_records: bool) -> None:
    hashes = np.sort(np.frombuffer(ids, dtype=np.uint64))
    # One pair that is a duplicate suffices, and so many pairs of different ids never collide.
    candidates = set(hashes[1:][hashes[1:] == hashes[:-1]][:1000].tolist())
    if not candidates:
        return
    seen: dict[str, str] = {}
    for item in locate_corpus(corpus, skip_bad_records=skip_bad_records):
        document_id = item.document.id
        if _id_hash(document_id) not in candidates:
            continue
        if document_id in seen:
            raise CorpusError(
                f"The id {document_id!r} occurs twice: {seen[document_id]} and {item.where}. Ids "
                "must be unique; rename one, or leave the ids out to have the records numbered."
            )
        seen[document_id] = item.where


def _report(survey: Survey, corpus: str | Path, reporter: Reporter) -> None:
    reporter.note(
        f"Corpus: {survey.documents:,} documents, {survey.passages:,} passages, "
        f"{survey.tokens:,} tokens, {survey.target_tokens:,} of them carry loss"
    )
    folder = Path(corpus)
    if folder.is_dir() and not is_saved_dataset(folder):
        _, passed_over = corpus_files(folder)
        files = LeftOut(len(passed_over), tuple(path.name for path in passed_over[:NAMED]))
        _report_left_out("files of no known kind passed over", files, reporter)
    _report_left_out("bad records skipped", survey.skipped, reporter)
    _report_left_out("documents left out", survey.without_target, reporter)


def _report_left_out(what: str, left_out: LeftOut, reporter: Reporter) -> None:
    if left_out.count:
        more = ", …" if left_out.count > len(left_out.first) else ""
        reporter.note(f"{left_out.count:,} {what}: {'; '.join(left_out.first)}{more}")
