"""Covariances of layer inputs and output gradients, ``A = E[a aᵀ]`` and ``B = E[g gᵀ]``."""

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from indexer.batches import batches
from indexer.halving import Halving
from indexer.progress import Reporter
from influence.curvature import Contribution, CovarianceSketch
from influence.encoder import Batch, LanguageModelLoss, run_backward
from influence.layers import LinearLayer
from influence.manifest import IndexSettings
from influence.tokens import Passage

log = logging.getLogger(__name__)

NYSTROM_OVERSAMPLING = 2  # columns of the covariance sketch, in ranks


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
        mask: Tensor,
    ) -> None:
        self._inputs = inputs
        self._outputs = outputs
        self._leaders = leaders
        self._mask = mask  # [B, T]: True where there is a token
        self._pending: list[tuple[CovarianceSketch, Contribution]] = []

    def on_input(self, layer: str, x: Tensor) -> None:
        self._collect(self._inputs[self._leaders[layer]], x)

    def on_gradient(self, layer: str, seen: None, g: Tensor) -> None:
        self._collect(self._outputs[layer], g)

    def _collect(self, sketch: CovarianceSketch, values: Tensor) -> None:
        self._pending.append((sketch, sketch.contribution(values[self._mask])))

    def commit(self) -> None:
        for sketch, contribution in self._pending:
            sketch.add(contribution)


def within_tokens(sample: Sequence[Passage], tokens: int) -> list[Passage]:
    """The first passages of the sample, until they hold so many tokens."""
    chosen, total = [], 0
    for passage in sample:
        if chosen and total >= tokens:
            break
        chosen.append(passage)
        total += len(passage.tokens.input_ids)
    return chosen


def fit_covariances(
    loss: LanguageModelLoss,
    passages: Sequence[Passage],
    layers: Sequence[LinearLayer],
    leaders: dict[str, str],
    settings: IndexSettings,
    reporter: Reporter,
) -> tuple[dict[str, CovarianceSketch], dict[str, CovarianceSketch]]:
    """Covariances of the passages' tokens: of inputs under their leaders, of output gradients.

    A passage whose loss is not finite is left out, and named in the log.
    """
    device = loss.loaded.device
    halving = Halving()
    columns = NYSTROM_OVERSAMPLING * settings.rank
    inputs: dict[str, CovarianceSketch] = {}
    outputs: dict[str, CovarianceSketch] = {}
    for number, layer in enumerate(layers):
        seed = settings.seed + 1000 + 2 * number  # every covariance has test vectors of its own
        if leaders[layer.name] == layer.name:
            inputs[layer.name] = CovarianceSketch(layer.d_in, columns, seed=seed, device=device)
        outputs[layer.name] = CovarianceSketch(layer.d_out, columns, seed=seed + 1, device=device)
    total = sum(len(p.tokens.input_ids) for p in passages)
    with reporter.step("Fitting: covariances", total=total, unit="tokens") as advance:

        def work(part: list[int]) -> None:
            batch = Batch.of([passages[i].tokens for i in part], device)
            receiver = _CovarianceReceiver(inputs, outputs, leaders, batch.real_tokens)
            finite = torch.isfinite(run_backward(loss, batch, layers, leaders, receiver)).tolist()
            if all(finite):
                receiver.commit()
                return
            bad = [passages[i].id for i, sound in zip(part, finite, strict=True) if not sound]
            log.warning("left out of the covariances, loss not finite: %s", ", ".join(bad))
            if rest := [i for i, sound in zip(part, finite, strict=True) if sound]:
                work(rest)

        for group in batches(passages, token_budget=settings.batch_tokens):
            for part, _ in halving.run(passages, group, work):
                advance(sum(len(passages[i].tokens) for i in part))
    return inputs, outputs
