"""Covariances of layer inputs and output gradients, ``A = E[a aᵀ]`` and ``B = E[g gᵀ]``."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from indexer.batches import Item, ItemT, batches
from indexer.halving import Halving
from indexer.progress import Reporter
from influence.curvature import Contribution, CovarianceSketch
from influence.layers import LinearLayer
from influence.task import Task, real_rows, run_backward

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Covariances:
    """What the sample's tokens say of each layer.

    Attributes:
        inputs: Of the inputs, for each leader.
        outputs: Of the output gradients, for each layer.
        passages: Passages they were taken from.
        tokens: Tokens of these.
    """

    inputs: dict[str, CovarianceSketch]
    outputs: dict[str, CovarianceSketch]
    passages: int
    tokens: int


class _CovarianceReceiver:
    """Collects what the real tokens of a batch add to the layers' covariances.

    Nothing is added before `commit`: a batch that turns out not to fit into memory, or to hold a
    passage that is not finite, is computed again without having left a trace.
    """

    def __init__(
        self,
        inputs: dict[str, CovarianceSketch],
        outputs: dict[str, CovarianceSketch],
        leaders: dict[str, str],
        masks: Sequence[Tensor],
    ) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._leaders = leaders
        self._masks = masks  # [B, T] each: True where there is a token
        self._pending: list[tuple[CovarianceSketch, Contribution]] = []

    def on_input(self, layer: str, x: Tensor) -> None:
        self._collect(self._inputs[self._leaders[layer]], x)

    def on_gradient(self, layer: str, seen: None, g: Tensor) -> None:
        self._collect(self._outputs[layer], g)

    def _collect(self, sketch: CovarianceSketch, values: Tensor) -> None:
        self._pending.append((sketch, sketch.contribution(real_rows(values, self._masks))))

    def commit(self) -> None:
        for sketch, contribution in self._pending:
            sketch.add(contribution)


def within_tokens(sample: Sequence[ItemT], tokens: int) -> list[ItemT]:
    """The first passages of the sample, until they hold so many tokens."""
    chosen, total = [], 0
    for passage in sample:
        if chosen and total >= tokens:
            break
        chosen.append(passage)
        total += len(passage.tokens)
    return chosen


def fit_covariances(
    task: Task,
    passages: Sequence[Item],
    layers: Sequence[LinearLayer],
    leaders: dict[str, str],
    *,
    columns: int,
    token_budget: int,
    seed: int,
    reporter: Reporter,
) -> Covariances:
    """Covariances of the passages' tokens: of inputs under their leaders, of output gradients.

    A passage whose loss is not finite is left out, and named in the log.

    Args:
        task: Model and loss.
        passages: Part of the fit sample.
        layers: The attributed layers.
        leaders: For each layer the first that reads the same input.
        columns: Of the sketch of a covariance; a layer no wider is not sketched.
        token_budget: Tokens of a batch.
        seed: Of the sketches.
        reporter: Told how far the work is.
    """
    device = task.device
    halving = Halving()
    inputs: dict[str, CovarianceSketch] = {}
    outputs: dict[str, CovarianceSketch] = {}

    def sketch(name: str, width: int, number: int) -> CovarianceSketch:
        # Every covariance has test vectors of its own.
        seed_of_its_own = seed + 1000 + number
        return CovarianceSketch(width, columns, seed=seed_of_its_own, device=device, name=name)

    for number, layer in enumerate(layers):
        name = layer.name
        if leaders[name] == name:
            inputs[name] = sketch(f"the inputs of {name}", layer.d_in, 2 * number)
        outputs[name] = sketch(f"the output gradients of {name}", layer.d_out, 2 * number + 1)
    used: list[int] = []
    total = sum(len(p.tokens) for p in passages)
    with reporter.step("Fitting: covariances", total=total, unit="tokens") as advance:

        def work(part: list[int]) -> None:
            batch = task.batch([passages[i].tokens for i in part])
            receiver = _CovarianceReceiver(inputs, outputs, leaders, batch.masks)
            finite = torch.isfinite(run_backward(task, batch, layers, leaders, receiver)).tolist()
            if all(finite):
                receiver.commit()
                used.extend(part)
                return
            bad = [passages[i].id for i, sound in zip(part, finite, strict=True) if not sound]
            log.warning("left out of the covariances, loss not finite: %s", ", ".join(bad))
            if rest := [i for i, sound in zip(part, finite, strict=True) if sound]:
                work(rest)

        for group in batches(passages, token_budget=token_budget):
            for part, _ in halving.run(passages, group, work):
                advance(sum(len(passages[i].tokens) for i in part))
    tokens = sum(len(passages[i].tokens) for i in used)
    return Covariances(inputs, outputs, len(used), tokens)
