"""Fit what SOURCE multiplies gradients with: curvature of every checkpoint, segments, factors.

Passages are rows of the loss summed over their tokens. Where training took the mean over tokens, a
step is shorter by the mean number of a passage's target tokens, and weight decay weighs more by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from indexer.batches import batches
from indexer.checkpoints import CheckpointFolder
from indexer.fit import with_sampled_labels
from indexer.halving import Halving
from indexer.progress import Advance
from indexer.segments import Segment, mean_over, segments_by_curvature, segments_of_stages
from influence.basis import Basis
from influence.encoder import GradientEncoder
from influence.errors import InvalidInput, NumericalError
from influence.manifest import IndexSettings, SegmentEntry, TrainingEntry
from influence.model import LoadedModel
from influence.tokens import Passage
from influence.unrolled import (
    UnrolledFactors,
    diagonal_in_basis,
    unrolled_factors,
    with_weight_decay,
)


@dataclass(frozen=True)
class Followed:
    """A training in the coordinates of a basis.

    Attributes:
        factors: For queries ``[K]``, and for passages in each segment ``[L, K]``.
        entry: What the manifest says.
    """

    factors: UnrolledFactors
    entry: TrainingEntry


def curvature_of(
    loaded: LoadedModel,
    basis: Basis,
    sample: Sequence[Passage],
    weights: np.ndarray,
    settings: IndexSettings,
    advance: Advance,
) -> Tensor:
    """``E[G²]`` of a checkpoint, ``[K]`` float64, over passages that weigh as much as it saw them.

    Raises:
        NumericalError: No passage that it saw has a finite gradient.
    """
    encoder = GradientEncoder(loaded, basis)
    if settings.labels == "sampled":
        encoder = GradientEncoder(with_sampled_labels(encoder.task, settings), basis)
    halving = Halving()
    squares, total = torch.zeros(basis.coordinates, dtype=torch.float64), 0.0

    def encode(part: list[int]) -> Tensor:
        return encoder.coordinates([sample[i].tokens for i in part])[0].cpu()

    for group in batches(sample, token_budget=settings.batch_tokens):
        for part, coordinates in halving.run(sample, group, encode):
            weight = torch.from_numpy(weights[part]).double()
            weight = torch.where(torch.isfinite(coordinates).all(dim=1), weight, 0.0)
            seen = weight > 0
            squares += weight[seen] @ coordinates[seen].double().square()
            total += float(weight.sum())
            advance(sum(len(sample[i].tokens) for i in part))
    if not total > 0:
        raise NumericalError(
            f"None of the {len(sample)} sampled passages has a finite gradient at {loaded.name} "
            "and was seen in its stage. Sample more (--fit-passages), or take this checkpoint "
            "out of the record."
        )
    return squares / total


def follow(
    folder: CheckpointFolder,
    basis: Basis,
    curvature: Tensor,
    settings: IndexSettings,
    *,
    tokens: float,
) -> Followed:
    """Cut training into segments and make their factors.

    Args:
        folder: The checkpoints.
        basis: Of the last one.
        curvature: Of every checkpoint, ``[C, K]``.
        settings: How many segments.
        tokens: Mean target tokens of a passage.

    Raises:
        InvalidInput: The checkpoints do not allow these segments.
    """
    record, optimizer = folder.record, folder.record.optimizer
    widths = [layer.coordinates for layer in basis.layers]
    if settings.segments == "stages":
        segments = segments_of_stages(record)
    else:
        assert settings.segments is not None  # the settings refuse it
        traces = torch.stack([part.sum(dim=1) for part in curvature.split(widths, dim=1)], dim=1)
        segments = segments_by_curvature(record, traces, settings.segments)
    terms = tokens if record.averaged == "token" else 1.0  # of an example's loss in the mean
    rates = [record.learning_rates(s.first, s.last) for s in segments]
    lengths = torch.tensor(rates, dtype=torch.float64)[:, None] / (1 - optimizer.momentum) / terms
    steps = (
        mean_over(segments, _preconditioners(folder, basis)) if optimizer.preconditioned else None
    )
    sigma = mean_over(segments, curvature)
    sigma = with_weight_decay(
        sigma, optimizer.weight_decay * terms, steps if optimizer.name == "adamw" else None
    )
    lengths = lengths if steps is None else lengths * steps
    factors = unrolled_factors(sigma, lengths)
    return Followed(factors, _entry(folder, segments, rates, lengths, sigma))


def _preconditioners(folder: CheckpointFolder, basis: Basis) -> Tensor:
    """``1 / (√v + ε)`` of every checkpoint, its diagonal in the basis, ``[C, K]``.

    Raises:
        InvalidInput: A layer has no second moments, or some of another shape.
    """
    rows = []
    for number, checkpoint in enumerate(folder.record.checkpoints):
        moments = folder.second_moments(number)
        parts = []
        for layer in basis.layers:
            values = moments.get(f"{layer.name}.weight")
            wanted = (layer.layer.d_out, layer.layer.d_in)
            if values is not None and values.shape != wanted and values.T.shape == wanted:
                values = values.T  # GPT-2's layers keep their weight the other way round
            if values is None or values.shape != wanted:
                found = "missing" if values is None else list(values.shape)
                raise InvalidInput(
                    f"The second moments of {layer.name}.weight at step {checkpoint.step} are "
                    f"{found}, and the layer is {list(wanted)}. Leave the layer out with --layers "
                    f"'!{layer.name}', or write them again."
                )
            inverse = 1 / (values.double().sqrt() + folder.record.optimizer.epsilon)
            parts.append(diagonal_in_basis(inverse, layer.p_in, layer.p_out).flatten())
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def _entry(
    folder: CheckpointFolder,
    segments: Sequence[Segment],
    rates: Sequence[float],
    lengths: Tensor,
    sigma: Tensor,
) -> TrainingEntry:
    record = folder.record
    decay = lengths * sigma  # [L, K]
    later = decay.flip(0).cumsum(0).flip(0) - decay
    return TrainingEntry(
        optimizer=record.optimizer.name,
        momentum=record.optimizer.momentum,
        weight_decay=record.optimizer.weight_decay,
        preconditioned=record.optimizer.preconditioned,
        batch_size=record.batch_size,
        averaged=record.averaged,
        steps=record.steps,
        segments=tuple(
            SegmentEntry(
                name=segment.name,
                first_step=segment.first,
                last_step=segment.last,
                checkpoints=tuple(record.checkpoints[n].step for n in segment.checkpoints),
                learning_rate=rates[number] / segment.steps,
                length=float(lengths[number].mean()),
                curvature=float(sigma[number].mean()),
                kept=float(torch.exp(-later[number]).mean()),
            )
            for number, segment in enumerate(segments)
        ),
        checkpoints=folder.weights_sha256(),
        data_order_sha256=folder.data_order_sha256(),
    )
