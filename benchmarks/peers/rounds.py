"""Sides run in processes of their own, round by round; what was measured survives being cut off."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import PEERS, python_of
from influence.atomic import write_bytes

HERE = Path(__file__).resolve().parent
Figures = dict[str, Any]


class Failed(Exception):
    """A side did not end well; the last line it said."""


@dataclass
class Rounds:
    """Runs sides and keeps their figures.

    Attributes:
        folder: The workload.
        environments: Folder of the peers' virtual environments.
        threads: That each side computes with.
        rounds: How often each is measured.
        settings: Everything else that decides the figures: they go on in a run of the same ones.
        failed: What sides that did not end well said, by measurement and side.
    """

    folder: Path
    environments: Path
    threads: int
    rounds: int
    settings: dict[str, Any]
    failed: dict[str, str] = field(default_factory=dict)
    _known: dict[str, Figures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self._record.exists():
            self._known = json.loads(self._record.read_text())

    @property
    def _record(self) -> Path:
        decides = json.dumps([self.threads, self.settings], sort_keys=True)
        digest = hashlib.sha256(decides.encode()).hexdigest()[:12]
        return self.environments / f"unfinished-{digest}.json"

    def finish(self) -> None:
        """Forget what was measured: the next run measures anew."""
        self._record.unlink(missing_ok=True)

    def run(self, side: str, what: str) -> Figures:
        """The figures of one side.

        Raises:
            Failed: It did not end well.
        """
        print(f"{what}: {side}", file=sys.stderr, flush=True)
        try:
            python = python_of(side, self.environments) if side in PEERS else Path(sys.executable)
        except subprocess.CalledProcessError as error:
            raise Failed(f"its packages could not be installed: {error}") from error
        command = [str(python), "-W", "ignore", f"side_{side}.py", str(self.folder), what]
        done = subprocess.run(
            [*command, str(self.threads)],
            cwd=HERE,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads), "TQDM_DISABLE": "1"},
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise Failed(said[-1] if said else f"exit status {done.returncode}")
        return json.loads(done.stdout.splitlines()[-1])

    def interleaved(self, sides: Sequence[str], what: str) -> dict[str, list[Figures]]:
        """Figures of every round; a side that fails once is left out and told."""
        found: dict[str, list[Figures]] = {side: [] for side in sides}
        for number in range(self.rounds):
            for side in sides:
                key = f"{what}/{side}/{number}"
                if f"{what}/{side}" in self.failed:
                    continue
                try:
                    if key not in self._known:
                        self._known[key] = self.run(side, what)
                        write_bytes(self._record, json.dumps(self._known).encode())
                    found[side].append(self._known[key])
                except Failed as error:
                    self.failed[f"{what}/{side}"] = str(error)
        return {side: figures for side, figures in found.items() if len(figures) == self.rounds}
