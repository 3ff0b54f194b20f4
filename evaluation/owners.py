"""What owners are paid against what a model loses without them.

    python -m evaluation.owners

Two corpora whose contributions are known because they were planted:

*Facts.* Every owner has equally many documents of one fact each, and so many of them are asked for
as its number says. A tiny Llama is trained on everything, indexed by the indexer, asked through the
engine, recorded in a ledger, and a pool is divided; and it is trained again without each owner,
from several seeds, to see what the answers lose.

*Digits*, a convex problem (`evaluation.convex`), where retraining has one result and the totals can
be held to it number by number.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from evaluation.cache import default_cache_dir
from evaluation.convex import Agreement, RegressionSettings, RegressionStudy
from evaluation.facts import PlantedFacts, plant_facts
from evaluation.language import LanguageSettings, LanguageTask
from evaluation.lds import spearman
from indexer.build import build_index
from indexer.progress import Advance, Reporter, Silence
from influence.atomic import write_bytes
from influence.manifest import IndexSettings
from influence.model import LoadedModel
from influence.store import IndexReader
from service.engine import Engine
from service.ledger.chain import Pending, canonical, unpack_totals
from service.ledger.ledger import Ledger
from service.ledger.record import attribution_entry, owners_of
from service.schemas import AttributeRequest
from service.valuation.allocation import parse_money
from service.valuation.intervals import interval, over_models
from service.valuation.statement import PolicyName, Terms, make_statement

SETTINGS = {
    "rank": 96,  # as wide as the layers
    "dims": 4_096,
    "damping": 0.01,
    "joint_damping": 0.1,
    "max_length": 64,
    "null_queries": 0,
}
# Few epochs: what a model knows by heart leaves hardly a gradient to attribute.
FACTS = LanguageSettings(documents=120, questions=90, epochs=14)
POOL = 10**9  # cents: shares to nine digits
PAYING: tuple[PolicyName, ...] = ("shapley", "positive-share")
_OCTOBER_US = 1_790_812_800_000_000  # 2026-10-01; any month will do


class OwnedFacts(LanguageTask):
    """Planted facts of several owners; every statement can be asked about in its own words."""

    def __init__(self, settings: LanguageSettings, *, owners: int, cache: Path) -> None:
        super().__init__(settings, cache=cache)
        self.owners = [f"owner {n}" for n in range(owners)]

    @cached_property
    def facts(self) -> PlantedFacts:
        """The corpus, owners dealt in turn; prompts are the statements without their values."""
        s = self.settings
        planted = plant_facts(s.documents, s.questions, seed=s.corpus_seed)
        asked = planted.answers.tolist()
        others = [i for i in range(s.documents) if i not in set(asked)]
        documents = list(planted.documents)
        for place in (asked, others):
            for turn, i in enumerate(place):
                owner = self.owners[turn % len(self.owners)]
                documents[i] = replace(documents[i], owner=owner)
        questions = tuple(
            (f"{' '.join(words[:-1])} ", words[-1])
            for words in (documents[i].text.split() for i in asked)
        )
        return PlantedFacts(tuple(documents), questions, planted.answers)

    @property
    def owner_of(self) -> np.ndarray:
        """Number of the owner of each document, ``[N]``."""
        return np.array([self.owners.index(d.owner or "") for d in self.facts.documents])

    @property
    def asked(self) -> np.ndarray:
        """Questions that are asked: about as many facts of an owner as its number says, ``[Q]``."""
        of = self.owner_of[self.facts.answers]
        return np.array([int((of[:q] == owner).sum()) < owner for q, owner in enumerate(of)])

    def lost(self, trainings: int, *, advance: Advance = lambda _: None) -> np.ndarray:
        """Nats that the answers lose without each owner, ``[O]``; the mean of trainings."""
        everything = np.ones((trainings, self.settings.documents), dtype=bool)
        without = np.array(
            [self.owner_of != owner for owner in range(len(self.owners)) for _ in range(trainings)]
        )
        seeds = range(trainings)
        before = self.outputs(everything, seeds, advance=advance).mean(axis=0)
        after = self.outputs(without, [*seeds] * len(self.owners), advance=advance)
        after = after.reshape(len(self.owners), trainings, -1).mean(axis=1)  # [O, Q]
        return (before - after)[:, self.asked].sum(axis=1)


@dataclass(frozen=True)
class Paid:
    """What the ledger says of the owners, in the order of their numbers.

    Attributes:
        totals: Summed signed totals over the number of documents: nats predicted to be lost by the
            answers of one model without the owner, ``[O]``.
        low: Lower ends of their 95 % intervals, over other models and questions, ``[O]``.
        high: Upper ends.
        earned: By policy, parts of the pool, ``[O]``.
    """

    totals: np.ndarray
    low: np.ndarray
    high: np.ndarray
    earned: dict[str, np.ndarray]


def pay(task: OwnedFacts, models: Sequence[LoadedModel], folder: Path) -> Paid:
    """Index the corpus under each model, ask, record and divide."""
    ledger = Ledger(str(folder / "ledger.db"), create=True)
    for number, model in enumerate(models):
        _record(task, model, folder / f"model-{number}", ledger)
    earned: dict[str, np.ndarray] = {}
    for policy in PAYING:
        lines = make_statement(ledger, "2026-10", Terms(POOL, policy))["lines"]
        by_name = {line["owner"]: line for line in lines}
        mine = [by_name[name]["earned"] for name in task.owners]
        earned[policy] = np.array([parse_money(amount, what="It") / POOL for amount in mine])
    each = _recorded(ledger, task.owners).reshape(len(models), -1, len(task.owners))
    each /= task.settings.documents
    low, high = interval(over_models(each))
    ledger.close()
    return Paid(each.sum(axis=1).mean(axis=0), low, high, earned)


def _recorded(ledger: Ledger, owners: Sequence[str]) -> np.ndarray:
    """Totals of the entries in their order, ``[entries, O]``."""
    names = {e.sequence: e.content["names"] for e in ledger.events("owners")}
    rows = []
    for entry in ledger.read():
        if entry.kind == "attribution":
            mine = names[entry.owner_set or 0]
            totals = unpack_totals(entry.totals or b"", len(mine))
            rows.append([totals[mine.index(name)] for name in owners])
    return np.array(rows)


def _record(task: OwnedFacts, model: LoadedModel, folder: Path, ledger: Ledger) -> None:
    """The way of an answer: indexed, attributed, an entry of the ledger."""
    folder.mkdir()
    lines = [
        canonical({"id": d.id, "text": d.plain, "owner": d.owner}) for d in task.facts.documents
    ]
    write_bytes(folder / "corpus.jsonl", "".join(f"{line}\n" for line in lines).encode())
    corpus, index = str(folder / "corpus.jsonl"), folder / "index"
    build_index(corpus, model, index, IndexSettings.model_validate(SETTINGS), reporter=Silence())
    engine = Engine(IndexReader.open(index), model, search_memory_bytes=2**30)
    entries: list[Pending] = []
    for number in np.flatnonzero(task.asked).tolist():
        prompt, response = task.facts.questions[number]
        request = AttributeRequest(prompt=prompt, response=response, top_k=1, opponents=False)
        result = engine.attribute(request, request_id=f"{folder.name}-{number}")
        owners, names = owners_of(result, time_us=_OCTOBER_US)
        entries = entries or [owners]
        entry = attribution_entry(
            request,
            result,
            owners,
            names,
            caller=None,
            usage=1.0,
            probability=1.0,
            policy="all",
            keep_text=False,
            salt=bytes(16),  # nobody is to be kept from finding these texts out
            time_us=_OCTOBER_US,
        )
        entries.append(entry)
    engine.close()
    ledger.append(entries)


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    return float(spearman(a[:, None], b[:, None])[0])


def facts_markdown(task: OwnedFacts, lost: np.ndarray, paid: Paid) -> str:
    """A row for each owner, and how columns rank owners against retraining."""
    of = task.owner_of[task.facts.answers][task.asked]
    asked = np.bincount(of, minlength=len(task.owners))
    columns = {
        "facts asked for": asked.astype(float),
        "lost without it, nats": lost,
        "total, nats [95 %]": paid.totals,
        **{f"earned, {policy}": part for policy, part in paid.earned.items()},
    }
    lines = [f"| owner | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for o, name in enumerate(task.owners):
        cells = [
            f"{values[o]:.1%}" if title.startswith("earned") else f"{values[o]:.3g}"
            for title, values in columns.items()
        ]
        cells[2] += f" [{paid.low[o]:.3g}, {paid.high[o]:.3g}]"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    against = [
        "" if values is lost else f"{_rank(values, lost):.3f}" for values in columns.values()
    ]
    lines.append(f"| Spearman with what is lost | {' | '.join(against)} |")
    return "\n".join(lines)


def digits_markdown(found: Sequence[tuple[int, Agreement]]) -> str:
    """A row for each number of owners and part of an owner's weight that is taken away."""
    lines = [
        "| owners | of an owner's weight taken away | Spearman | correlation | nats refitted for "
        "one predicted | off (rms) |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {owners} | {one.part:.0%} | {one.rank_correlation:.3f} | {one.correlation:.5f} | "
        f"{one.slope:.3f} | {one.error:.2%} |"
        for owners, one in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="What owners are paid against retraining.")
    parser.add_argument("--owners", type=int, default=10)
    parser.add_argument("--trainings", type=int, default=4, help="of each corpus, by seed")
    parser.add_argument("--indexed", type=int, default=2, help="models that are indexed and asked")
    parser.add_argument("--epochs", type=int, default=FACTS.epochs)
    parser.add_argument("--draw", type=int, default=FACTS.corpus_seed, help="of the facts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    facts = replace(FACTS, epochs=arguments.epochs, corpus_seed=arguments.draw)
    task = OwnedFacts(facts, owners=arguments.owners, cache=default_cache_dir())
    reporter = Reporter()
    trained = arguments.trainings * (arguments.owners + 1)
    with reporter.step("Retraining", total=trained, unit="models") as advance:
        lost = task.lost(arguments.trainings, advance=advance)
    with TemporaryDirectory() as folder:
        paid = pay(task, task.models(range(arguments.indexed)), Path(folder))
    print(facts_markdown(task, lost, paid), flush=True)
    found = []
    for owners, parts in ((10, (1.0, 0.5, 0.25, 0.1, 0.01)), (50, (1.0,))):
        study = RegressionStudy(RegressionSettings(owners=owners))
        found += [(owners, one) for one in study.agreements(parts)]
    print()
    print(digits_markdown(found))


if __name__ == "__main__":
    main()
