"""What an owner gains by gaming, with and without what is there against it.

    python -m evaluation.gaming

Planted facts (`evaluation.facts`), divided among owners. One of them, the *gamer*, changes what it
hands in or what is asked; each time the index is built anew, by the indexer, and a pool is divided
by the policies of a payout. Shares are means over several divisions of the corpus, each with its
own gamer. The model was trained on the honest corpus and has not read what the gamer adds: one that
has learnt a text has small gradients left on it, so new texts may gain more here than they would
with a model that was trained on them.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from evaluation.cache import default_cache_dir
from evaluation.facts import RELATIONS
from evaluation.language import LanguageSettings, LanguageTask
from indexer.build import build_index
from indexer.progress import Reporter, Silence
from influence.basis import basis_of
from influence.documents import Document
from influence.encoder import GradientEncoder
from influence.manifest import IndexSettings
from influence.model import LoadedModel
from influence.store import IndexReader
from influence.tokens import TokenSequence, query_tokens
from service.valuation.allocation import divide
from service.valuation.counting import Counting
from service.valuation.outliers import by_oddness

GAMER = "gamer"
POOL = 10**9  # cents: shares to nine digits
MAX_Z = 5.0  # the default of `whence quality`
NORM_CAP = 1.5  # medians, that a vector counts as long as at most
SETTINGS = {
    "rank": 96,  # as wide as the layers
    "dims": 4_096,
    "damping": "auto",
    "joint_damping": "auto",
    "max_length": 64,
    "null_queries": 0,
}
CAP = 2  # documents' equal parts of the pool, that a document may earn


@dataclass(frozen=True)
class Play:
    """What the gamer does.

    Attributes:
        name: Of the row.
        corpus: All documents, the gamer's among them.
        queries: All queries.
        by: The key that asked each, ``[Q]``; the gamer's is `GAMER`.
    """

    name: str
    corpus: list[Document]
    queries: list[TokenSequence]
    by: list[str]


@dataclass(frozen=True)
class Measure:
    """One way to count and weigh.

    Attributes:
        scores: Of each passage for each query, ``[Q, N]``; 0 where it does not count.
        weights: Of the queries, ``[Q]``.
        normalised: Each query's totals over the sum of their absolute values.
        capped: A document earns at most `CAP` equal parts of the pool.
    """

    scores: np.ndarray
    weights: np.ndarray
    normalised: bool = False
    capped: bool = False


@dataclass(frozen=True)
class Outcome:
    """The gamer's share of the pool, by policy, then by counter-measure."""

    name: str
    shares: dict[str, dict[str, float]]


class GamingStudy:
    """The task, its owners and the gamer's plays.

    Args:
        task: Its first model is attributed.
        owners: Equal parts of the corpus; the first belongs to the gamer.
        seed: Who owns what, and the noise.
    """

    def __init__(self, task: LanguageTask, *, owners: int = 8, seed: int = 0) -> None:
        self._task = task
        self._draw = np.random.default_rng(seed)
        names = [GAMER, *(f"owner {n}" for n in range(1, owners))]
        order = self._draw.permutation(len(task.facts.documents))
        owner_of = {int(place): names[n % owners] for n, place in enumerate(order)}
        self._honest = [replace(d, owner=owner_of[i]) for i, d in enumerate(task.facts.documents)]
        self._mine = [d for d in self._honest if d.owner == GAMER]
        asked = [self._honest[i] for i in task.facts.answers]
        self._coveted = [d for d in asked if d.owner != GAMER][: len(self._mine)]
        keys = [f"key {n % 8}" for n in range(len(task.queries))]
        self._plain = Play("honest", self._honest, list(task.queries), keys)

    def plays(self) -> list[Play]:
        """Honesty first; then one trick at a time."""
        adding = {
            "copies of others' documents": [_with_text(d, d.text) for d in self._coveted],
            "copies in other words": [_with_text(d, _reworded(d)) for d in self._coveted],
            "noise beside its documents": [
                _with_text(d, self._noise(), mark="noise") for d in self._mine
            ],
        }
        added = [
            replace(self._plain, name=name, corpus=[*self._honest, *documents])
            for name, documents in adding.items()
        ]
        others = [d for d in self._honest if d.owner != GAMER]
        pieces = [piece for d in self._mine for piece in _halves(d)]
        split = replace(self._plain, name="its documents in halves", corpus=[*others, *pieces])
        own = [self._question(d) for d in self._mine] * 4
        asking = replace(
            self._plain,
            name="asking for itself",
            queries=[*self._plain.queries, *own],
            by=[*self._plain.by, *[GAMER] * len(own)],
        )
        return [self._plain, *added, split, asking]

    def outcome(self, play: Play, model: LoadedModel, folder: Path) -> Outcome:
        """Build the play's index and divide the pool in every way."""
        corpus = folder / "corpus.jsonl"
        corpus.write_text(
            "".join(
                json.dumps({"id": d.id, "text": d.plain, "owner": d.owner}) + "\n"
                for d in play.corpus
            )
        )
        settings = IndexSettings.model_validate(SETTINGS)
        build_index(str(corpus), model, folder / "index", settings, reporter=Silence())
        reader = IndexReader.open(folder / "index")
        queries = _query_vectors(reader, model, play.queries)
        scores = queries @ reader.vectors(range(len(reader))).astype(np.float64).T  # [Q, N]
        directions = scores / np.linalg.norm(queries, axis=1)[:, None]  # cosines
        keys, counts = np.unique(play.by, return_counts=True)
        per_key = {str(key): 1 / count for key, count in zip(keys, counts, strict=True)}
        once, alike = np.ones(len(queries)), np.array([per_key[key] for key in play.by])
        whole = Counting().lengths(reader)
        folded = Counting(fold=True).lengths(reader)
        shortened = Counting(norm_cap=NORM_CAP).lengths(reader)
        usual = _left(reader, {one.document_id for one in by_oddness(reader) if one.z > MAX_Z})
        same = Counting(relative=True).lengths(reader)
        measures = {
            "none": Measure(scores * whole, once),
            "relative": Measure(directions * same, once),
            "norms capped": Measure(scores * shortened, once),
            "answers normalised": Measure(scores * whole, once, normalised=True),
            "duplicates folded": Measure(scores * folded, once),
            "odd left out": Measure(scores * whole * usual, once),
            "cap": Measure(scores * whole, once, capped=True),
            "keys alike": Measure(scores * whole, alike),
            "all": Measure(directions * same * (folded > 0) * usual, alike, capped=True),
        }
        shares = {
            policy: {
                name: _gamers_share(reader, measure, worth) for name, measure in measures.items()
            }
            for policy, worth in POLICIES.items()
        }
        reader.close()
        return Outcome(play.name, shares)

    def _question(self, document: Document) -> TokenSequence:
        relation, value = _relation(document)
        prompt = RELATIONS[relation][1].format(p=document.title, v="")
        return query_tokens(prompt, value, self._task.tokenizer, max_length=64)

    def _noise(self) -> str:
        vocabulary = sorted({word for d in self._honest for word in d.text.split()})
        return " ".join(self._draw.choice(vocabulary, size=60))


def _linear(totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ totals


def _positive_share(totals: np.ndarray, weights: np.ndarray) -> np.ndarray:
    positive = np.maximum(totals, 0)
    return weights @ (positive / positive.sum(axis=1, keepdims=True).clip(min=1e-300))


# Worth of owners ``[O]`` from totals ``[Q, O]`` and weights ``[Q]``, as `service.valuation.totals`
# adds them up from a ledger.
POLICIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "shapley": _linear,
    "positive-share": _positive_share,
}


def _gamers_share(
    reader: IndexReader,
    measure: Measure,
    worth: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> float:
    """Part of the pool, by the division of a payout."""
    owners = np.unique(reader.row_owners)
    mine = [reader.row_owners == owner for owner in owners]
    totals = np.stack([measure.scores[:, rows].sum(axis=1) for rows in mine], axis=1)
    if measure.normalised:
        totals = totals / np.abs(totals).sum(axis=1, keepdims=True).clip(min=1e-300)
    caps: list[int | None] = [None] * len(owners)
    if measure.capped:
        counted = np.flatnonzero(measure.scores.any(axis=0))
        ids = [reader.passage(int(row)).document_id for row in counted]
        owned = dict(zip(ids, reader.row_owners[counted].tolist(), strict=True))
        documents = [list(owned.values()).count(owner) for owner in owners.tolist()]
        caps = [CAP * POOL * count // len(owned) for count in documents]
    floors = [0] * len(owners)
    earned, _ = divide(POOL, worth(totals, measure.weights).tolist(), floors=floors, caps=caps)
    return earned[owners.tolist().index(GAMER)] / POOL


def _left(reader: IndexReader, dropped: set[str]) -> np.ndarray:
    """Rows of the other documents, ``[N]`` bool."""
    return np.array([reader.passage(r).document_id not in dropped for r in range(len(reader))])


def _query_vectors(
    reader: IndexReader, model: LoadedModel, queries: Sequence[TokenSequence]
) -> np.ndarray:
    vectors = GradientEncoder(model, basis_of(reader)).vectors(queries, measured=True)
    return vectors.numpy().astype(np.float64)


def _with_text(document: Document, text: str, *, mark: str = "copy") -> Document:
    return replace(document, id=f"{document.id} {mark}", plain=text, owner=GAMER)


def _relation(document: Document) -> tuple[int, str]:
    """Which relation a document is about, and its value, the last word."""
    value = document.text.split()[-1]
    (number,) = [n for n, (_, _, values) in enumerate(RELATIONS) if value in values.split()]
    return number, value


def _reworded(document: Document) -> str:
    """The same fact in another phrasing."""
    number, value = _relation(document)
    texts = [phrasing.format(p=document.title, v=value) for phrasing in RELATIONS[number][0]]
    return next(text for text in texts if text != document.text)


def _halves(document: Document) -> list[Document]:
    words = document.text.split()
    middle = len(words) // 2
    parts = (" ".join(words[:middle]), " ".join(words[middle:]))
    return [replace(document, id=f"{document.id} {n}", plain=part) for n, part in enumerate(parts)]


def markdown(outcomes: Sequence[Outcome]) -> str:
    """One table for each policy: the gamer's share in percent."""
    tables = []
    for policy in POLICIES:
        names = list(outcomes[0].shares[policy])
        lines = [
            f"| {policy} | {' | '.join(names)} |",
            f"|---|{'---|' * len(names)}",
        ]
        lines += [
            f"| {one.name} | {' | '.join(f'{one.shares[policy][n]:.1%}' for n in names)} |"
            for one in outcomes
        ]
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def run(task: LanguageTask, *, owners: int, gamers: int) -> list[Outcome]:
    """Every play, the honest one first; shares are means over as many gamers."""
    (model,) = task.models([0])
    studies = [GamingStudy(task, owners=owners, seed=seed) for seed in range(gamers)]
    together = list(zip(*(study.plays() for study in studies), strict=True))
    means = []
    with Reporter().step("Playing", total=len(together) * gamers, unit="plays") as advance:
        for plays in together:
            outcomes = []
            for study, play in zip(studies, plays, strict=True):
                with TemporaryDirectory() as folder:
                    outcomes.append(study.outcome(play, model, Path(folder)))
                advance(1)
            means.append(_mean(outcomes))
    return means


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    first = outcomes[0]
    shares = {
        policy: {
            measure: float(np.mean([one.shares[policy][measure] for one in outcomes]))
            for measure in first.shares[policy]
        }
        for policy in first.shares
    }
    return replace(first, shares=shares)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="What an owner gains by gaming.")
    parser.add_argument("--gamers", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = LanguageTask(LanguageSettings(), cache=default_cache_dir())
    print(markdown(run(task, owners=8, gamers=arguments.gamers)))


if __name__ == "__main__":
    main()
