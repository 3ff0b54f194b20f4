"""Whence beside its peers: logging, search, agreement and LDS, on the same models and documents.

    python -m benchmarks.peers --documents 64 --rounds 3

Each peer runs in a virtual environment of its own in the cache, made on the first run; a side that
fails is told with its last line. Rounds are interleaved, a process for each side and round; medians
with half of the spread over rounds. A run that was cut off goes on. The training step is plain:
forward and backward, no optimizer.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.peers.environments import PEERS
from benchmarks.peers.rounds import Failed, Figures, Rounds
from benchmarks.peers.workload import LAYERS, LENGTHS, RANK, SEARCH_RANK, make_workload
from evaluation.cache import default_cache_dir

LOGGING = ("step", "whence", "bergson", "logix", "dattri")
SEARCH = ("whence", "bergson", "logix")
SCORED = ("kronfluence", "bergson", "logix")


def told(figures: list[Figures], name: str) -> str:
    """Median and spread of a figure."""
    values = [figure[name] for figure in figures]
    middle = statistics.median(values)
    spread = (max(values) - min(values)) / middle if middle else 0
    return f"{middle:,.0f} (± {spread / 2:.0%})"


def ratio(own: list[Figures], other: list[Figures], name: str) -> float:
    """Median over rounds of one side's figure by another's in the same round."""
    return statistics.median(a[name] / b[name] for a, b in zip(own, other, strict=True))


def logging(rounds: Rounds) -> None:
    """Tokens a second, bytes a passage, peak memory."""
    for lengths in LENGTHS:
        found = rounds.interleaved(LOGGING, f"logging:{lengths}")
        print(f"\nLogging, documents of {lengths} length, rank {RANK} (Whence: 4,096 dims)\n")
        print(
            "| | real tokens/s | Whence's to it | of the step's time | bytes a passage | peak MB |"
        )
        print("|---|---|---|---|---|---|")
        for side, figures in found.items():
            times = {
                other: f"{ratio(found[of], figures, 'tokens_per_s'):.2f}" if of in found else "–"
                for other, of in (("whence", "whence"), ("step", "step"))
            }
            print(
                f"| {side} | {told(figures, 'tokens_per_s')} | {times['whence']} | {times['step']} "
                f"| {figures[0]['bytes_a_passage']:,.0f} | {told(figures, 'peak_mb')} |"
            )


def search(rounds: Rounds) -> None:
    """Pairs of query and passage a second."""
    passages = rounds.settings["passages"]
    for count in passages:
        found = rounds.interleaved(SEARCH, f"search:{count}")
        if count == min(passages):
            served = rounds.interleaved(("whence",), f"http:{count}").get("whence")
            if served:
                found["whence over HTTP, whole answers"] = served
        print(f"\nSearch of {count:,} random vectors (peers at rank {SEARCH_RANK}), pairs/s\n")
        print("| | numbers a passage | 1 query | 32 queries | Whence's to it |")
        print("|---|---|---|---|---|")
        for side, figures in found.items():
            pairs = [f"pairs_per_s_{queries}" for queries in (1, 32)]
            own = found.get("whence")
            times = " and ".join(f"{ratio(own, figures, p):.1f}" for p in pairs) if own else "–"
            print(
                f"| {side} | {figures[0]['dims']:,.0f} | {told(figures, pairs[0])} "
                f"| {told(figures, pairs[1])} | {times} |"
            )


def agreement(rounds: Rounds) -> None:
    """Full-size EK-FAC of Whence against Kronfluence's."""
    rounds.run("truth", "prepare-agreement")
    try:
        peer = rounds.run("kronfluence", "agreement")
    except Failed as error:
        rounds.failed["agreement/kronfluence"] = str(error)
        return
    own = rounds.run("truth", "agreement")
    print(
        f"\nFull-size EK-FAC, 20 queries x 200 documents: scores correlate with Kronfluence's at "
        f"{own['correlation']:.4f} (worst query {own['worst']:.4f}); {own['seconds']:.1f} s and "
        f"{peer['seconds']:.1f} s."
    )


def lds(rounds: Rounds) -> None:
    """Scores of each on the model of the language task, against its retrained models."""
    rounds.run("truth", f"prepare-lds:{rounds.settings['task']}")
    for side in SCORED:
        try:
            rounds.run(side, "lds")
        except Failed as error:
            rounds.failed[f"lds/{side}"] = str(error)
    print(f"\nLDS on the language task ({rounds.settings['task']} size), one model, all queries\n")
    print("| | LDS [95 %] |\n|---|---|")
    for name, (mean, low, high) in rounds.run("truth", "lds").items():
        print(f"| {name} | {mean:.3f} [{low:.3f}, {high:.3f}] |")


MEASURES = {"logging": logging, "search": search, "agreement": agreement, "lds": lds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128, help="of a document, the median")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the model that is logged")
    parser.add_argument("--passages", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--task", choices=("small", "whole"), default="whole", help="of LDS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=MEASURES)
    parser.add_argument(
        "--environments", type=Path, default=default_cache_dir().parent / "peers",
        help="folder of the peers' virtual environments",
    )  # fmt: skip
    options = parser.parse_args()
    options.environments.mkdir(parents=True, exist_ok=True)
    decides = {
        name: getattr(options, name)
        for name in ("documents", "tokens", "layers", "passages", "task")
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make_workload(
            folder, documents=options.documents, tokens=options.tokens, layers=options.layers
        )
        rounds = Rounds(folder, options.environments, options.threads, options.rounds, decides)
        for name, measure in MEASURES.items():
            if options.only in (None, name):
                measure(rounds)
        rounds.finish()
    for place, said in rounds.failed.items():
        measured, side = place.split("/")
        print(f"\n{side} ({', '.join(PEERS.get(side, ()))[:40]}) failed at {measured}: {said}")


if __name__ == "__main__":
    main()
