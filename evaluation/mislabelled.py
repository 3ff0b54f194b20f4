"""Which documents are mislabelled? What finds the wrong labels of the digits, and how surely.

    python -m evaluation.mislabelled

A tenth of the labels that a network was trained on are wrong, and it is known which. Its examples
are ranked by self-influence, and by how far their neighbours agree with them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation.cache import default_cache_dir
from evaluation.digits import DigitsSettings, DigitsTask
from evaluation.subject import Subject, captured
from influence.manifest import IndexSettings
from service.valuation.agreement import NEIGHBOURS, neighbour_agreement
from service.valuation.outliers import robust_z

_SETTINGS = {"rank": 32, "dims": 4_096, "damping": 0.1}
_MODEL_SEED = 1000  # beyond those that subsets are trained with


@dataclass(frozen=True)
class Found:
    """How well one way finds the wrong labels.

    Attributes:
        way: Its name.
        auc: Chance that a wrong label is ranked before a right one.
        flagged: Examples beyond its threshold.
        precision: Part of these that is wrong; 0 of none.
        recall: Part of the wrong ones that is among them.
    """

    way: str
    auc: float
    flagged: int
    precision: float
    recall: float


def find(settings: DigitsSettings, *, cache: Path) -> list[Found]:
    """Rank the examples of one trained network in every way."""
    task = DigitsTask(settings, cache=cache)
    (model,) = task.models([_MODEL_SEED])
    examples = list(zip(task.train.images, task.train.labels.tolist(), strict=True))
    fitted = captured(Subject(model, examples), IndexSettings.model_validate(_SETTINGS))
    vectors = fitted.basis.whitened(fitted.training).double().numpy()
    norms = np.linalg.norm(vectors, axis=1)
    units = vectors / norms[:, None].clip(min=1e-300)
    wrong = (task.true_labels != task.train.labels).numpy()
    agreement, _ = neighbour_agreement(
        len(units), lambda rows: units[list(rows)], neighbours=NEIGHBOURS
    )
    z = robust_z(np.log(np.square(norms).clip(min=1e-300)))
    return [
        _found("self-influence, z > 5", z, z > 5, wrong),
        _found("self-influence, the tenth of most", z, z >= np.quantile(z, 0.9), wrong),
        _found("agreement of neighbours below 0", -agreement, agreement < 0, wrong),
    ]


def _found(way: str, ranked: np.ndarray, flagged: np.ndarray, wrong: np.ndarray) -> Found:
    above = ranked[wrong][:, None] > ranked[~wrong][None, :]
    hits = int((flagged & wrong).sum())
    count = int(flagged.sum())
    return Found(way, float(above.mean()), count, hits / max(count, 1), hits / int(wrong.sum()))


def markdown(found: Sequence[Found]) -> str:
    """The table."""
    lines = [
        "| way | AUC | flagged | of these wrong | of the wrong ones |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.way} | {one.auc:.3f} | {one.flagged} | {one.precision:.1%} | {one.recall:.1%} |"
        for one in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Which ways find wrong labels.")
    parser.add_argument("--noise", type=float, default=DigitsSettings().noise)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(markdown(find(DigitsSettings(noise=arguments.noise), cache=default_cache_dir())))


if __name__ == "__main__":
    main()
