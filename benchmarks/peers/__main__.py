"""Whence beside its peers: logging, search and agreement, on the same model and documents.

    python -m benchmarks.peers --documents 64 --rounds 3

Each peer runs in a virtual environment of its own in the cache, made on the first run; a side that
fails is told with its last line. Rounds are interleaved, a process for each side and round; medians
with the spread over rounds. The training step is plain: forward and backward, no optimizer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.peers.environments import PEERS, python_of
from benchmarks.peers.workload import RANK, SEARCH_RANK, SEARCHED, make_workload
from evaluation.cache import default_cache_dir

HERE = Path(__file__).resolve().parent
LOGGING = ("step", "whence", "bergson", "logix")
SEARCH = ("whence", "bergson", "logix")


class Failed(Exception):
    """A side did not end well; the last line it said."""


def run(side: str, what: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one side."""
    own = side in ("step", "whence")
    python = Path(sys.executable) if own else python_of(side, options.environments)
    command = [str(python), "-W", "ignore", f"side_{side}.py", str(folder), what]
    done = subprocess.run(
        [*command, str(options.threads)],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(options.threads), "TQDM_DISABLE": "1"},
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Failed(said[-1] if said else f"exit status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def interleaved(
    sides: tuple[str, ...], what: str, folder: Path, options: argparse.Namespace
) -> dict[str, list[dict[str, float]]]:
    """Figures of every round; a side that fails once is left out and told."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    failed: dict[str, str] = {}
    for number in range(options.rounds):
        for side in sides:
            if side in failed:
                continue
            print(f"{what}: round {number + 1}, {side}", file=sys.stderr)
            try:
                found[side].append(run(side, what, folder, options))
            except Failed as error:
                failed[side] = str(error)
    for side, said in failed.items():
        print(f"{side} ({', '.join(PEERS.get(side, ()))[:40]}) failed at {what}: {said}\n")
    return {side: figures for side, figures in found.items() if side not in failed}


def told(figures: list[dict[str, float]], name: str) -> str:
    """Median and spread of a figure."""
    values = [figure[name] for figure in figures]
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle if middle else 0
    return f"{middle:,.0f} (± {spread / 2:.0%})"


def logging(folder: Path, options: argparse.Namespace) -> None:
    """Tokens a second, bytes a passage, peak memory."""
    found = interleaved(LOGGING, "logging", folder, options)
    print(f"Logging at rank {RANK} (Whence: 4,096 dims)\n")
    print("| | tokens/s | time, of the training step | bytes a passage | peak MB |")
    print("|---|---|---|---|---|")
    for side, figures in found.items():
        ratios = [
            a["tokens_per_s"] / b["tokens_per_s"]
            for a, b in zip(found["step"], figures, strict=True)
        ]
        print(
            f"| {side} | {told(figures, 'tokens_per_s')} | {statistics.median(ratios):.2f} "
            f"| {figures[0]['bytes_a_passage']:,.0f} | {told(figures, 'peak_mb')} |"
        )


def search(folder: Path, options: argparse.Namespace) -> None:
    """Pairs of query and passage a second."""
    found = interleaved(SEARCH, "search", folder, options)
    print(f"\nSearch of {SEARCHED:,} passages (peers at rank {SEARCH_RANK}), pairs/s\n")
    print("| | numbers a passage | 1 query | 32 queries |")
    print("|---|---|---|---|")
    for side, figures in found.items():
        print(
            f"| {side} | {figures[0]['dims']:,.0f} | {told(figures, 'pairs_per_s_1')} "
            f"| {told(figures, 'pairs_per_s_32')} |"
        )


def agreement(folder: Path, options: argparse.Namespace) -> None:
    """Full-size EK-FAC of Whence against Kronfluence's."""
    run("whence", "prepare-agreement", folder, options)
    try:
        peer = run("kronfluence", "agreement", folder, options)
    except Failed as error:
        print(f"\nkronfluence failed: {error}")
        return
    own = run("whence", "agreement", folder, options)
    print(
        f"\nFull-size EK-FAC, 20 queries x 200 documents: scores correlate with Kronfluence's at "
        f"{own['correlation']:.4f} (worst query {own['worst']:.4f}); {own['seconds']:.1f} s and "
        f"{peer['seconds']:.1f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=("logging", "search", "agreement"))
    parser.add_argument(
        "--environments", type=Path, default=default_cache_dir().parent / "peers",
        help="folder of the peers' virtual environments",
    )  # fmt: skip
    options = parser.parse_args()
    options.environments.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_workload(folder, documents=options.documents, tokens=options.tokens)
        for name, measure in {"logging": logging, "search": search, "agreement": agreement}.items():
            if options.only in (None, name):
                measure(folder, options)


if __name__ == "__main__":
    main()
