"""Batches that fit into memory: one that does not is computed in halves."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from indexer.batches import Item
from influence.errors import OutOfMemory

log = logging.getLogger(__name__)

T = TypeVar("T")


class Halving:
    """Remembers what did not fit, so that no later batch of that size is tried in vain."""

    def __init__(self) -> None:
        self._too_large = math.inf  # in tokens, padding included

    def run(
        self, passages: Sequence[Item], group: list[int], work: Callable[[list[int]], T]
    ) -> Iterator[tuple[list[int], T]]:
        """Call ``work`` with a batch, or with parts of it; yields each part with its result.

        Args:
            passages: What the batch is taken from.
            group: Indices of the batch.
            work: Computes a batch. It may be called again with half of what it failed on, so it
                must leave nothing behind when it raises.

        Raises:
            OutOfMemory: A single passage does not fit.
        """
        waiting = [group]
        while waiting:
            part = waiting.pop()
            tokens = len(part) * max(len(passages[i].tokens) for i in part)
            if tokens >= self._too_large and len(part) > 1:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
                continue
            try:
                result = work(part)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise OutOfMemory(
                        f"Passage {passages[part[0]].id} of {tokens} tokens does not fit into "
                        "memory, not even alone. Use a smaller --max-length, or a machine with "
                        "more memory."
                    ) from error
                log.warning("out of memory with %d tokens in a batch; trying halves", tokens)
                self._too_large = tokens
                waiting.append(part)
                # Only after this block is the failed attempt's memory free: the error holds it.
            else:
                yield part, result


def _is_out_of_memory(error: Exception) -> bool:
    """PyTorch says so with a class on a GPU, and with words on a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error).lower()
