"""How far a corpus has moved away from the sample on which a basis was fitted."""

from collections.abc import Sequence

import torch
from torch import Tensor

from indexer.batches import Item, batches
from indexer.halving import Halving
from influence.basis import Basis
from influence.drift import outside_shares
from influence.manifest import IndexSettings
from influence.task import Task

DRIFT_PASSAGES = 32  # are measured, drawn at random
DRIFT_LIMIT = 0.1  # of the energy that the basis keeps of its own sample


def mean_outside_share(
    task: Task, basis: Basis, passages: Sequence[Item], settings: IndexSettings
) -> float | None:
    """Mean share of the passages' gradient energy that the basis does not keep.

    None where none of them has a gradient.
    """
    basis = basis.to(task.device)
    halving = Halving()
    found = [torch.empty(0)]

    def measure(part: list[int]) -> Tensor:
        return outside_shares(task, basis, [passages[i].tokens for i in part])

    for group in batches(passages, token_budget=settings.batch_tokens):
        found += [shares for _, shares in halving.run(passages, group, measure)]
    shares = torch.cat(found)
    return float(shares.double().mean()) if len(shares) else None


def has_drifted(outside: float | None, fitted: float | None) -> bool:
    """Whether the basis keeps so much less of new passages than of its sample that it is too old.

    Args:
        outside: Share outside, of the new passages.
        fitted: That of the sample.
    """
    if outside is None or fitted is None:
        return False
    return 1 - outside < (1 - DRIFT_LIMIT) * (1 - fitted)
