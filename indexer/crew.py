"""The processes that build one index together, over a folder that all of them see.

A build is a set of units of work, each of which leaves a file that depends on nothing but the plan.
So it does not matter which process computes a unit, or that two did, and any number of processes
end with the same bytes. They take units by stride, each under a lock that ends with its holder;
who is done with his own takes what is left of the others', those of a process that was killed
among them. Nobody needs to know who else is there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from influence.errors import InvalidInput
from influence.lock import ENTRANCE, WRITERS, FileLock, locked

# Where a launcher says which process this is: its number, how many there are, the lowest number.
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", None),  # torchrun, accelerate
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("SLURM_PROCID", "SLURM_NTASKS", None),  # srun
)


@dataclass(frozen=True)
class Crew:
    """One process among ``size``, the ``rank``-th from 0; ``local_rank`` on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Crew":
        """As torchrun or SLURM has said; alone where neither has.

        The numbers say where a process begins, no more: a wrong one costs time and changes nothing.

        Raises:
            InvalidInput: A variable is no whole number, or one of a pair is missing.
        """
        for rank_name, size_name, first_name in _LAUNCHERS:
            if rank_name not in environment and size_name not in environment:
                continue
            first = _number(environment, first_name) if first_name else 0
            rank, size = _number(environment, rank_name) - first, _number(environment, size_name)
            if size < 1 or rank < 0:
                raise InvalidInput(
                    f"{rank_name} is {environment[rank_name]} and {size_name} is "
                    f"{environment[size_name]}; a rank is from 0 to the number of processes less "
                    "1. Start with torchrun or SLURM, or unset both."
                )
            local = _number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else 0
            return cls(rank % size, size, local)  # an array with a step skips numbers
        return cls()

    @property
    def name(self) -> str:
        """For messages; empty where it is alone."""
        return f"rank {self.rank} of {self.size}" if self.size > 1 else ""

    def device(self, wanted: str) -> str:
        """Where ``auto`` is asked for on a machine with several GPUs, the one of this process."""
        if wanted == "auto" and self.local_rank and (devices := torch.cuda.device_count()) > 1:
            return f"cuda:{self.local_rank % devices}"
        return wanted

    def own(self, units: int) -> range:
        """Its units by stride."""
        return range(self.rank, units, self.size)


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name)
    if value is None or not value.strip().isdecimal():
        state = "missing" if value is None else repr(value)
        raise InvalidInput(
            f"The variable {name} is {state}, and the others of its launcher are set. Start with "
            "torchrun or SLURM, or unset them all."
        )
    return int(value)


class Claims:
    """Units that this process works on; let go with the ``with`` block or with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, FileLock] = {}

    def take(self, unit: str) -> bool:
        """Claim a unit; False where another process works on it."""
        lock = FileLock(self._folder / f"{unit}.lock")
        if not lock.try_acquire():
            lock.close()
            return False
        self._held[unit] = lock
        return True

    def is_free(self, unit: str) -> bool:
        """Whether no process works on a unit, this one included."""
        if free := unit not in self._held and self.take(unit):
            self.release(unit)
        return free

    def release(self, unit: str) -> None:
        """Let go of a unit."""
        self._held.pop(unit).close()

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        for lock in self._held.values():
            lock.close()
        self._held.clear()


@contextmanager
def ending(index_dir: Path) -> Iterator[None]:
    """Wait until nobody else works on the build, and be alone inside the block.

    Every process of the build comes here when all units are done. The first ends the build; the
    others follow one by one and find it ended.
    """
    with locked(index_dir / ENTRANCE), locked(index_dir / WRITERS):
        yield
