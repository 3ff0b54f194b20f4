"""Batches of similar length: the rows of a batch are padded to its longest, at full price.

Passages are sorted by length and cut into runs. Filling each run to the token budget gives the
fewest batches, but in a small shard with a large budget a run then reaches from long passages to
short ones. So the runs are chosen by dynamic programming to minimise

    computed tokens + price · batches,        computed tokens = Σ rows × longest

and the price of a batch is lowered until the padding is below its limit: nearly the fewest batches
that waste no more. (At price 0 every length has its own batch, so the limit can always be held.)
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import numpy as np

PADDING_LIMIT = 0.05  # share of the computed tokens
_PRICES = (*(2.0**-n for n in range(12)), 0.0)  # as shares of the token budget


class Item(Protocol):
    """A passage, or an example of any other task: ``len(tokens)`` is what it costs in a batch."""

    @property
    def id(self) -> str:
        """Its name in messages."""
        ...

    @property
    def tokens(self) -> Any:
        """What the task batches."""
        ...


ItemT = TypeVar("ItemT", bound=Item)


def batches(passages: Sequence[Item], *, token_budget: int) -> list[list[int]]:
    """Group passages into batches, longest first; the same passages always give the same batches.

    Args:
        passages: What is to be computed.
        token_budget: Rows × longest row of a batch at most, in tokens. A passage beyond it is a
            batch of its own.

    Returns:
        Indices into ``passages``, each exactly once.
    """
    if token_budget < 1:
        raise ValueError(f"token_budget is {token_budget}; a batch needs at least 1 token.")
    lengths = np.array([len(passage.tokens) for passage in passages], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    groups: list[list[int]] = []
    for price in _PRICES:
        cuts = _cut(lengths[order], token_budget, price * token_budget)
        groups = [order[i:j].tolist() for i, j in pairwise(cuts)]
        if padding_share(passages, groups) < PADDING_LIMIT:
            break
    return groups


def padding_share(passages: Sequence[Item], groups: Sequence[Sequence[int]]) -> float:
    """Share of the computed tokens that is padding, in [0, 1)."""
    real = computed = 0
    for group in groups:
        lengths = [len(passages[i].tokens) for i in group]
        real += sum(lengths)
        computed += len(lengths) * max(lengths)
    return 1 - real / computed if computed else 0.0


def _cut(lengths: np.ndarray, budget: int, price: float) -> list[int]:
    """Where to cut ``lengths`` (descending, ``[N]``) at the least cost: 0, …, N."""
    count = len(lengths)
    costs = np.zeros(count + 1)  # of everything from i on
    ends = np.zeros(count + 1, dtype=np.int64)  # of the batch that starts at i
    for i in range(count - 1, -1, -1):
        rows = max(1, min(count - i, budget // int(lengths[i])))
        candidates = lengths[i] * np.arange(1, rows + 1) + costs[i + 1 : i + rows + 1]
        # Of equal costs the longest batch.
        best = rows - 1 - int(np.argmin(candidates[::-1]))
        costs[i], ends[i] = candidates[best] + price, i + best + 1
    cuts = [0]
    while cuts[-1] < count:
        cuts.append(int(ends[cuts[-1]]))
    return cuts
