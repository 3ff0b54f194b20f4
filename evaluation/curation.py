"""Curation: does a corpus get better by keeping what is valuable, and are bad examples found?

A valuation gives every training example a number, higher for what helps a validation set. Kept is
the most valuable share, models are trained on it, and other queries are measured. Where it is known
which examples are bad (flipped labels, poisoned ones), the area under the ROC curve (AUC) says how
often a bad one is valued below a good one: 1 finds all of them, .5 is chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.lds import Interval, bootstrap

# Which examples are kept [S, N] bool -> measured on models trained on them [S, Q].
Retrain = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Kept:
    """What training on the most valuable share gave.

    Attributes:
        valuation: Its name.
        share: Of the examples that were kept.
        measured: Of the queries, mean; higher is better.
        right: Share of the queries measured above 0.
    """

    valuation: str
    share: float
    measured: Interval
    right: float


def most_valuable(values: np.ndarray, share: float) -> np.ndarray:
    """The most valuable share of the examples: ``[N]`` -> bool ``[N]``.

    Raises:
        ValueError: That would be none of them.
    """
    count = round(share * len(values))
    if not 0 < count <= len(values):
        raise ValueError(f"{share} of {len(values)} examples is {count}; keep 1 to all of them.")
    kept = np.zeros(len(values), dtype=bool)
    kept[np.argsort(-values, kind="stable")[:count]] = True
    return kept


def keep_shares(
    valuations: Mapping[str, np.ndarray],
    shares: Sequence[float],
    retrain: Retrain,
    reported: np.ndarray,
) -> list[Kept]:
    """Train on the most valuable share of each valuation.

    Args:
        valuations: Of every example, ``[N]`` each.
        shares: That are kept.
        retrain: Trains and measures; above 0 a query is answered rightly.
        reported: Queries that no valuation has seen, ``[Q]`` bool.
    """
    found = []
    for name, values in valuations.items():
        for share in shares:
            measured = retrain(most_valuable(values, share)[None])[0, reported]
            found.append(Kept(name, share, bootstrap(measured), float((measured > 0).mean())))
    return found


def detection_auc(values: np.ndarray, bad: np.ndarray) -> float:
    """How often a bad example is valued below a good one; ties count half.

    Args:
        values: ``[N]``.
        bad: ``[N]`` bool.

    Raises:
        ValueError: All are good, or all are bad.
    """
    from sklearn.metrics import roc_auc_score

    if bad.all() or not bad.any():
        raise ValueError(f"{bad.sum()} of {len(bad)} examples are bad; an AUC needs both kinds.")
    return float(roc_auc_score(bad, -values))
