"""Totals of a range of the ledger, in one pass whose memory does not grow with it.

For every owner ``o`` and every entry ``q`` of weight ``w_q`` with signed totals ``t_qo``:

    linear_o          = Σ_q w_q t_qo
    positive_share_o  = Σ_q w_q max(t_qo, 0) / Σ_p max(t_qp, 0)
    flat_o            = Σ_q w_q / (number of owners in the index that answered)

Entries go in turn into `GROUPS` groups, whose sums are kept: their sum is the total, and resampling
them is the bootstrap over queries (`service.valuation.intervals`). Up to that many entries every
group is one query; beyond it the groups are random ones of equal size, which leaves the variance of
the sum what it is. Sums are made row by row in the order of the chain, in float64 and without a
matrix product, so the same entries give the same bits on any machine.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from service.ledger.chain import Entry, unpack_totals
from service.valuation.aliases import Aliases
from service.valuation.weighing import Entries

GROUPS = 500
_AT_ONCE = 64  # entries whose totals are in the processor's cache together

# Bodies are canonical JSON, so there is no space around them for `json.loads` to look for, which
# took half of its time.
_parse = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class PeriodTotals:
    """What a range of the ledger adds up to.

    Attributes:
        first: First sequence of the range.
        last: Its last sequence.
        owners: Names, sorted; the empty one is the unattributed remainder.
        groups: Of ``linear``, ``positive-share`` and ``flat``: sums per group, ``[G, O]``.
        entries: Attributions in the range.
        weight: Their weights, together.
        versions: Index versions (index, version, model) that answered.
        policies: How many entries each policy of recording made.
        callers: Weight of each API key.
        passages: Recorded top influence of each passage, weighted; a cut, unlike the totals.
        against: Likewise of the opponents; negative.
    """

    first: int
    last: int
    owners: tuple[str, ...]
    groups: dict[str, np.ndarray]
    entries: int
    weight: float
    versions: tuple[tuple[str, str, str], ...]
    policies: dict[str, int]
    callers: dict[str, float]
    passages: dict[str, float]
    against: dict[str, float]

    def total(self, kind: str) -> np.ndarray:
        """``[O]``."""
        return self.groups[kind].sum(axis=0)


@dataclass
class _Sums:
    """Sums of the entries of one set of owners in one epoch of the aliases."""

    owners: tuple[str, ...]  # after the aliases, without repetition
    columns: np.ndarray  # of each recorded name
    linear: np.ndarray = field(init=False)
    positive: np.ndarray = field(init=False)
    weights: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = (GROUPS, len(self.owners))
        self.linear, self.positive, self.weights = (
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(GROUPS),
        )

    def add(self, first_group: int, rows: list[bytes], weights: list[float]) -> None:
        """Add entries that go to consecutive groups, the last of all at most."""
        for start in range(0, len(rows), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._add(first_group + start, rows[part], np.array(weights[part]))

    def _add(self, first_group: int, rows: list[bytes], weight: np.ndarray) -> None:
        totals = self._owned(rows)
        groups = slice(first_group, first_group + len(rows))
        self.weights[groups] += weight
        clipped = np.maximum(totals, 0)
        whole = clipped.sum(axis=1)
        clipped *= (weight / np.where(whole > 0, whole, 1))[:, None]
        self.positive[groups] += clipped
        totals *= weight[:, None]
        self.linear[groups] += totals

    @property
    def flat(self) -> np.ndarray:
        """Equal parts, ``[G, O]``."""
        return np.repeat(self.weights[:, None] / len(self.owners), len(self.owners), axis=1)

    def _owned(self, rows: list[bytes]) -> np.ndarray:
        """Signed totals of the owners, float64 ``[Q, O]``."""
        if len({len(row) for row in rows}) == 1:  # nearly always: joined in one go
            joined = unpack_totals(b"".join(rows), len(self.columns) * len(rows))
            recorded = joined.reshape(len(rows), -1)
        else:
            recorded = np.stack([unpack_totals(row, len(self.columns)) for row in rows])
        if np.array_equal(self.columns, np.arange(len(self.owners))):
            return recorded.astype(np.float64)
        totals = np.zeros((len(rows), len(self.owners)))
        for place, column in enumerate(self.columns):  # several names may be one owner
            totals[:, column] += recorded[:, place]
        return totals


def period_totals(entries: Entries, first: int, last: int, aliases: Aliases) -> PeriodTotals:
    """Add up the attributions of a range.

    Args:
        entries: A ledger, or a reader in front of one that counts or weighs otherwise.
        first: Sequence of the first entry.
        last: Of the last one.
        aliases: Who owns what is recorded under a name.

    Raises:
        LedgerUnavailable: The database cannot be read.
    """
    sums: dict[tuple[int, int], _Sums] = {}
    sets = {entry.sequence: entry for entry in entries.events("owners")}
    policies: Counter[str] = Counter()
    callers: dict[str, float] = {}
    passages: dict[str, float] = {}
    against: dict[str, float] = {}
    count, weight = 0, 0.0
    used: dict[int, None] = {}
    run: list[Entry] = []
    place: tuple[int, int] | None = None

    def flush() -> None:
        nonlocal run
        if run and place is not None:
            if place not in sums:
                sums[place] = _new_sums(sets[place[0]], run[0].time_us, aliases)
            sums[place].add(
                (count - len(run)) % GROUPS,
                [entry.totals or b"" for entry in run],
                [entry.weight or 0.0 for entry in run],
            )
        run = []

    for entry in entries.read(first, last):
        if entry.kind != "attribution":
            continue
        here = (entry.owner_set or 0, aliases.epoch(entry.time_us))
        if here != place or count % GROUPS == 0:
            flush()
            place = here
        run.append(entry)
        count += 1
        used[here[0]] = None
        weight += entry.weight or 0.0
        said, _ = _parse(entry.body)
        policies[said["policy"]] += 1
        caller = said["caller"] or ""
        callers[caller] = callers.get(caller, 0.0) + (entry.weight or 0.0)
        # Entries of the first versions do not name opponents.
        for worth, named in ((passages, said["passages"]), (against, said.get("against", ()))):
            for passage, influence in named:
                worth[passage] = worth.get(passage, 0.0) + influence * (entry.weight or 0.0)
    flush()
    owners, groups = _together(list(sums.values()))
    said_sets = [sets[number].content for number in used]
    return PeriodTotals(
        first,
        last,
        owners,
        groups,
        count,
        weight,
        tuple(sorted({(s["index"], s["version"], s["model"]) for s in said_sets})),
        dict(sorted(policies.items())),
        dict(sorted(callers.items())),
        passages,
        against,
    )


def _new_sums(owner_set: Entry, time_us: int, aliases: Aliases) -> _Sums:
    recorded = owner_set.content["names"]
    owned = [aliases.owner(name, time_us) if name else name for name in recorded]
    owners = tuple(sorted(set(owned)))
    column = {name: place for place, name in enumerate(owners)}
    return _Sums(owners, np.array([column[name] for name in owned]))


def _together(parts: list[_Sums]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    owners = tuple(sorted({name for part in parts for name in part.owners}))
    column = {name: place for place, name in enumerate(owners)}
    kinds = ("linear", "positive-share", "flat")
    groups = {kind: np.zeros((GROUPS, len(owners))) for kind in kinds}
    for part in parts:
        places = [column[name] for name in part.owners]
        for kind, values in zip(kinds, (part.linear, part.positive, part.flat), strict=True):
            groups[kind][:, places] += values
    return owners, groups
