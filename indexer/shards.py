"""Log the vectors of every passage, shard by shard (`influence.staging`).

Within a shard passages travel in batches of similar length, and their vectors return to the order
of the corpus. A shard that an earlier run finished is passed over.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from indexer.batches import batches
from indexer.corpus import Located
from indexer.halving import Halving
from indexer.progress import Advance
from influence.documents import Document
from influence.encoder import Encoded, GradientEncoder
from influence.manifest import IndexSettings, Shard
from influence.staging import PassageRow, Staging
from influence.tokens import Passage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Logged:
    """What was logged: the shards, the passages left out with the reason, the padding."""

    shards: tuple[Shard, ...]
    left_out: tuple[str, ...]
    padding_share: float


@dataclass(frozen=True)
class _Item:
    """A passage on its way, with its document where the passage is the first of it."""

    passage: Passage
    document: Document | None


def log_shards(
    staging: Staging,
    encoder: GradientEncoder,
    corpus: Iterable[tuple[Located, list[Passage]]],
    settings: IndexSettings,
    advance: Advance,
) -> Logged:
    """Write every shard that is not there yet.

    Args:
        staging: The build.
        encoder: Model and basis.
        corpus: Documents with their passages, from the beginning (`indexer.passages`).
        settings: Sizes of passages, batches and shards.
        advance: Told the tokens done.
    """
    shards: list[Shard] = []
    left_out: list[str] = []
    computed = real = 0
    items = _items(corpus)
    halving = Halving()
    while shard := list(islice(items, settings.shard_passages)):
        number = len(shards)
        if staging.shard_rows(number) is None:
            _log_shard(staging, number, shard, encoder, settings, halving, advance)
        else:
            advance(sum(len(item.passage.tokens) for item in shard))
        record = staging.shard_record(number)
        shards.append(Shard(name=f"{number:05d}", rows=record["rows"]))
        left_out += record["left_out"]
        computed += record["computed_tokens"]
        real += record["real_tokens"]
    padding_share = 1 - real / computed if computed else 0.0
    return Logged(tuple(shards), tuple(left_out), padding_share)


def _items(corpus: Iterable[tuple[Located, list[Passage]]]) -> Iterator[_Item]:
    for located, passages in corpus:
        for number, passage in enumerate(passages):
            yield _Item(passage, located.document if number == 0 else None)


def _log_shard(
    staging: Staging,
    number: int,
    shard: Sequence[_Item],
    encoder: GradientEncoder,
    settings: IndexSettings,
    halving: Halving,
    advance: Advance,
) -> None:
    passages = [item.passage for item in shard]
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
        )
        for i in np.flatnonzero(usable)
    ]
    staging.write_shard(
        number,
        vectors[usable],
        rows,
        [item.document for item in shard if item.document is not None],
        {"left_out": left_out, "computed_tokens": computed, "real_tokens": real},
    )


def _why(vector: np.ndarray) -> str:
    return "zero" if np.isfinite(vector).all() else "not finite"
