"""Log the vectors of every passage, shard by shard (`influence.staging`).

Within a shard passages travel in batches of similar length, and their vectors return to the order
of the corpus. A shard is a unit of work of the crew (`indexer.crew`): one that is finished, in an
earlier run or by another process, is passed over.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from indexer.batches import batches
from indexer.crew import Claims, Crew
from indexer.halving import Halving
from indexer.progress import Advance
from indexer.units import Item, Units
from influence.encoder import Encoded, GradientEncoder
from influence.manifest import IndexSettings, Shard
from influence.staging import Staging, shard_name
from influence.tables import PassageRow
from influence.tokens import Passage
from influence.versions import SHARD_RECORDS

log = logging.getLogger(__name__)

# (number of a shard, its passages, their vectors [n, D]) -> the vectors that are stored
Finish = Callable[[int, Sequence[Passage], np.ndarray], np.ndarray]


def as_they_are(number: int, passages: Sequence[Passage], vectors: np.ndarray) -> np.ndarray:
    """A `Finish` that changes nothing."""
    return vectors


@dataclass(frozen=True)
class Logged:
    """What was logged: the shards, the passages left out with the reason, the padding."""

    shards: tuple[Shard, ...]
    left_out: tuple[str, ...]
    padding_share: float


class _Finished:
    """The records of finished shards, whoever wrote them."""

    def __init__(self, staging: Staging, units: int, advance: Advance) -> None:
        self.records: dict[int, dict[str, Any]] = {}
        # Listing a large folder takes its time, on a shared file system above all.
        self.look_every_s = 0.2 + 1e-4 * units
        self._staging = staging
        self._units = units
        self._advance = advance
        self._looked = -math.inf

    def add(self, number: int, *, advance: bool) -> None:
        """Take a finished shard in, and count its tokens where that has not been done."""
        self.records[number] = self._staging.shard_record(number)
        if advance:
            self._advance(self.records[number]["real_tokens"])

    def missing(self) -> list[int]:
        """Shards that nobody has finished, as of now or a moment ago."""
        if time.monotonic() - self._looked >= self.look_every_s:
            self._looked = time.monotonic()
            for number in self._staging.finished_shards() - self.records.keys():
                self.add(number, advance=True)
        return [number for number in range(self._units) if number not in self.records]


def log_shards(
    staging: Staging,
    encoder: GradientEncoder,
    units: Units,
    settings: IndexSettings,
    advance: Advance,
    crew: Crew = Crew(),  # noqa: B008 - frozen
    finish: Finish = as_they_are,
) -> Logged:
    """Write every shard that is not there yet, together with the rest of the crew.

    Args:
        staging: The build.
        encoder: Model and basis.
        units: The passages of each shard.
        settings: Sizes of passages, batches and shards.
        advance: Told the tokens done, by whomever.
        crew: This process among those of the build.
        finish: What becomes of vectors before they are stored.
    """
    halving = Halving()
    finished = _Finished(staging, len(units), advance)
    with Claims(staging.directory / SHARD_RECORDS) as claims:

        def claimed(number: int) -> bool:
            if number in finished.records or not claims.take(shard_name(number)):
                return False
            if staging.has_shard(number):  # finished by another process a moment ago
                claims.release(shard_name(number))
                return False
            return True

        def log_some(candidates: set[int]) -> None:
            for number, items in units.chosen(lambda n: n in candidates and claimed(n)):
                _log_shard(staging, number, items, encoder, settings, halving, advance, finish)
                claims.release(shard_name(number))
                finished.add(number, advance=False)
                finished.missing()

        own = set(crew.own(len(units)))
        for number in sorted(own):
            if staging.shard_rows(number) is not None:
                finished.add(number, advance=True)
            else:
                staging.forget_shard(number)
        if own := own - finished.records.keys():
            log_some(own)
        while missing := finished.missing():
            if any(claims.is_free(shard_name(number)) for number in missing):
                log_some(set(missing))
            else:
                time.sleep(finished.look_every_s)
    records = [finished.records[number] for number in range(len(units))]
    computed = sum(record["computed_tokens"] for record in records)
    real = sum(record["real_tokens"] for record in records)
    return Logged(
        tuple(Shard(name=shard_name(n), rows=record["rows"]) for n, record in enumerate(records)),
        tuple(line for record in records for line in record["left_out"]),
        1 - real / computed if computed else 0.0,
    )


def _log_shard(
    staging: Staging,
    number: int,
    shard: Sequence[Item],
    encoder: GradientEncoder,
    settings: IndexSettings,
    halving: Halving,
    advance: Advance,
    finish: Finish,
) -> None:
    passages = [item.passage for item in shard]
    encoded = encode_passages(encoder, passages, settings, halving, advance)
    vectors, losses = finish(number, passages, encoded.vectors), encoded.losses
    usable = np.isfinite(vectors).all(axis=1) & (np.abs(vectors).max(axis=1) > 0)
    left_out = [
        f"{passages[i].id}: its gradient is {_why(vectors[i])}" for i in np.flatnonzero(~usable)
    ]
    for line in left_out:
        log.warning("left out: %s", line)
    rows = [
        PassageRow(
            passages[i].document_id,
            passages[i].number,
            passages[i].start,
            passages[i].end,
            sum(passages[i].tokens.targets),
            float(losses[i]),
            len(passages[i].tokens),
        )
        for i in np.flatnonzero(usable)
    ]
    staging.write_shard(
        number,
        vectors[usable],
        rows,
        [item.document for item in shard if item.document is not None],
        {
            "left_out": left_out,
            "computed_tokens": encoded.computed_tokens,
            "real_tokens": encoded.real_tokens,
        },
    )


@dataclass(frozen=True)
class EncodedPassages:
    """Vectors ``[n, D]`` float32 and losses ``[n]`` in the order of the passages, and tokens."""

    vectors: np.ndarray
    losses: np.ndarray
    computed_tokens: int
    real_tokens: int


def encode_passages(
    encoder: GradientEncoder,
    passages: Sequence[Passage],
    settings: IndexSettings,
    halving: Halving,
    advance: Advance,
) -> EncodedPassages:
    """Vectors of passages, in batches of similar length."""
    vectors = np.zeros((len(passages), encoder.basis.vector_dims), dtype=np.float32)
    losses = np.zeros(len(passages))
    computed = real = 0

    def encode(part: list[int]) -> Encoded:
        return encoder.encode([passages[i].tokens for i in part])

    for group in batches(passages, token_budget=settings.batch_tokens):
        for part, encoded in halving.run(passages, group, encode):
            vectors[part] = encoded.vectors.cpu().numpy()
            losses[part] = encoded.losses.cpu().numpy()
        lengths = [len(passages[i].tokens) for i in group]
        computed += len(lengths) * max(lengths)
        real += sum(lengths)
        advance(sum(lengths))
    return EncodedPassages(vectors, losses, computed, real)


def _why(vector: np.ndarray) -> str:
    return "zero" if np.isfinite(vector).all() else "not finite"
