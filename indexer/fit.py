"""Fit the basis of an index on a sample of its corpus (`influence.basis`).

Two passes of the model over the sample: covariances of layer inputs and output gradients, whose
leading eigenvectors become the projections (random ones need no such pass); then projected
gradients, from which come the curvature of each layer and, sketched, the covariance across layers.
The projected gradients wait on disk (`indexer.spool`), so memory does not grow with the sample.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from indexer.batches import Item, batches
from indexer.covariances import Covariances, fit_covariances, within_tokens
from indexer.drift import DRIFT_PASSAGES, mean_outside_share
from indexer.halving import Halving
from indexer.progress import Reporter
from indexer.projections import (
    AUTO_DAMPING,
    Projections,
    leading_projections,
    random_projections,
    sketch_columns,
)
from indexer.spool import GradientSpool
from influence.basis import Basis, LayerBasis
from influence.curvature import kfac_eigenvalues
from influence.encoder import GradientEncoder, LanguageModelLoss, as_task
from influence.errors import InvalidInput, NumericalError
from influence.fisher import SampledLabelLoss
from influence.layers import select_layers
from influence.manifest import FitEntry, IndexSettings, LayerEntry, dims_for
from influence.model import LoadedModel
from influence.shrinkage import (
    JOINT_GRID,
    LAYER_GRID,
    diagonal_losses,
    joint_losses,
    layer_losses,
    pick,
    raw_losses,
)
from influence.task import Reached, Task, check_examples_apart, reached_layers
from influence.whitening import LowRankWhitening

log = logging.getLogger(__name__)

PROBES = 8  # passages among which those are chosen that show which layers the loss reaches


@dataclass(frozen=True)
class Fitted:
    """A basis, and what the manifest says of it.

    Attributes:
        basis: Projections and whitenings.
        settings: Those asked for, with the numbers picked where a damping was auto.
        layers: Widths, ranks and shares kept.
        entry: What it was fitted on, and how numbers were picked.
    """

    basis: Basis
    settings: IndexSettings
    layers: tuple[LayerEntry, ...]
    entry: FitEntry


def fit_basis(
    source: LoadedModel | Task,
    sample: Sequence[Item],
    settings: IndexSettings,
    *,
    spool: Path,
    reporter: Reporter,
) -> Fitted:
    """Fit projections, the curvature of each layer and the joint whitening.

    Args:
        source: The model, or any other task.
        sample: Passages (or examples of the task) drawn at random from the corpus, in random order.
        settings: Rank, dims, dampings and sizes of the sample.
        spool: A file for the projected gradients; removed afterwards.
        reporter: Told how far the work is.

    Raises:
        NumericalError: No passage has a finite gradient, or a covariance will not decompose.
        InvalidInput: A damping cannot be picked from so few passages.
        UnknownLayers: A pattern of the settings matches nothing, or no layer is reached.
    """
    task = as_task(source)
    reached = _reached(task, sample, settings)
    layers, leaders = reached.layers, reached.leaders
    if settings.labels == "sampled":
        task = with_sampled_labels(task, settings)
    covariances = None
    if settings.projection == "random":
        projections = random_projections(layers, leaders, settings)
    else:
        covariances = fit_covariances(
            task,
            within_tokens(sample, settings.fit_tokens),
            layers,
            leaders,
            columns=sketch_columns(settings),
            token_budget=settings.batch_tokens,
            seed=settings.seed,
            reporter=reporter,
        )
        projections = leading_projections(layers, leaders, covariances, settings)
    bare = _bare_basis(projections, settings, examples=len(sample))
    with GradientSpool(spool, bare.coordinates) as gradients:
        _log_sample(task, bare, sample, gradients, settings, reporter)
        # The last of the sample, beyond those whose covariances made the projections if there are.
        outside = mean_outside_share(task, bare, sample[-DRIFT_PASSAGES:], settings)
        bare = _with_curvature(bare, gradients, projections, covariances, settings)
        basis, picked = _with_dampings(bare, gradients, settings, task.device, reporter)
    assert basis.joint is not None
    return Fitted(
        basis,
        settings.model_copy(
            update={
                "dims": basis.dims,
                "damping": basis.damping,
                "joint_damping": basis.joint.damping,
            }
        ),
        projections.entries(),
        FitEntry(
            passages=gradients.rows,
            covariance_passages=covariances.passages if covariances else 0,
            covariance_tokens=covariances.tokens if covariances else 0,
            share_of_curvature=projections.share_of_curvature(),
            joint_rank=0 if basis.joint.is_identity else len(basis.joint.eigenvalues),
            picked=picked,
            outside_share=outside,
        ),
    )


def _reached(task: Task, sample: Sequence[Item], settings: IndexSettings) -> Reached:
    """The selected layers that the loss depends on; the others are named, and so not covered.

    Raises:
        InvalidInput: Examples in one batch do not have the gradients they have alone.
    """
    selected = select_layers(task.model, settings.layers, target=settings.target)
    # Short ones, but none of a single token, which has nothing to predict.
    some = sorted(sample[:PROBES], key=lambda item: (len(item.tokens) < 2, len(item.tokens)))[:2]
    halving = Halving()

    def reach(part: list[int]) -> Reached:
        return reached_layers(task, selected, some[part[0]].tokens)

    def check(part: list[int]) -> None:
        if len(part) > 1:
            check_examples_apart(task, reached, [some[i].tokens for i in part])

    ((_, reached),) = halving.run(some, [0], reach)
    if reached.unreached:
        log.warning(
            "%d of %d selected layers are left out, since the model does not call them or the loss "
            "does not depend on them: %s",
            len(reached.unreached),
            len(selected),
            ", ".join(layer.name for layer in reached.unreached),
        )
    for _ in halving.run(some, list(range(len(some))), check):
        pass
    return reached


def with_sampled_labels(task: Task, settings: IndexSettings) -> Task:
    """The same model with labels that it draws itself.

    Raises:
        InvalidInput: It is no causal language model.
    """
    if not isinstance(task, LanguageModelLoss):
        raise InvalidInput(
            f"Labels can be sampled for causal language models only, not for "
            f"{type(task).__name__}. Use labels empirical."
        )
    return SampledLabelLoss(task, seed=settings.seed)


def _bare_basis(projections: Projections, settings: IndexSettings, *, examples: int) -> Basis:
    """Projections alone; curvature and dampings are to come."""
    layers = []
    for layer in projections.layers:
        a, b = projections.of(layer.name)
        ones = torch.ones(len(b.basis), len(a.basis), dtype=torch.float64)
        leader = projections.leaders[layer.name]
        layers.append(LayerBasis(layer.name, leader, a.basis.float(), b.basis.float(), ones))
    dims = dims_for(examples) if settings.dims == "auto" else settings.dims
    return Basis(tuple(layers), math.nan, dims, settings.seed)


def _log_sample(
    task: Task,
    bare: Basis,
    sample: Sequence[Item],
    gradients: GradientSpool,
    settings: IndexSettings,
    reporter: Reporter,
) -> None:
    """Second pass: the projected gradients of the sample."""
    encoder = GradientEncoder(task, bare)
    halving = Halving()
    total = sum(len(p.tokens) for p in sample)

    def encode(part: list[int]) -> Tensor:
        return encoder.coordinates([sample[i].tokens for i in part])[0]

    with reporter.step("Fitting: eigenvalues", total=total, unit="tokens") as advance:
        for group in batches(sample, token_budget=settings.batch_tokens):
            for part, coordinates in halving.run(sample, group, encode):
                gradients.append(coordinates[torch.isfinite(coordinates).all(dim=1)])
                advance(sum(len(sample[i].tokens) for i in part))
    if gradients.rows == 0:
        raise NumericalError(
            f"None of the {len(sample)} sampled passages has a finite gradient. Use --dtype "
            "float32, and check that the model's weights are finite."
        )


def _with_curvature(
    bare: Basis,
    gradients: GradientSpool,
    projections: Projections,
    covariances: Covariances | None,
    settings: IndexSettings,
) -> Basis:
    """The eigenvalues of every layer, or its whole covariance."""
    mean_squares = gradients.squares / gradients.rows
    layers = []
    for layer, columns in _columns(bare):
        measured = mean_squares[columns].view_as(layer.eigenvalues)
        if not measured.count_nonzero():
            log.warning("no gradient reached %s; it adds nothing to any score", layer.name)
        if settings.hessian == "identity":
            values = torch.ones_like(measured)
        elif settings.hessian == "kfac":
            assert covariances is not None  # the settings refuse it
            a, b = projections.of(layer.name)
            tokens = covariances.outputs[layer.name].count / covariances.passages
            values = kfac_eigenvalues(a, b, tokens_per_passage=tokens)
        else:
            values = measured
        covariance = None
        if settings.hessian == "raw":
            rows = gradients.columns(columns.start, columns.stop)
            covariance = LowRankWhitening.fit(rows, damping=1.0)
        layers.append(replace(layer, eigenvalues=values, covariance=covariance))
    return replace(bare, layers=tuple(layers))


def _with_dampings(
    bare: Basis,
    gradients: GradientSpool,
    settings: IndexSettings,
    device: torch.device,
    reporter: Reporter,
) -> tuple[Basis, dict[str, str]]:
    """The dampings asked for or picked, and the joint covariance under the first of them."""
    picked: dict[str, str] = {}
    how = f"by the angular likelihood of held-out gradients of {gradients.rows} passages"
    damping = settings.damping
    if damping == "auto" and settings.hessian == "identity":
        damping = AUTO_DAMPING
        picked["damping"] = f"{damping:g}, for all rank alike where the curvature is the identity"
    elif damping == "auto":
        damping = pick(_layer_losses(bare, gradients, settings), LAYER_GRID)
        picked["damping"] = f"{damping:g}, {how}"
    basis = replace(bare, damping=damping).to(device)
    vectors = torch.cat([basis.sketched(rows.to(device)) for rows in gradients.blocks()])
    joint_damping = settings.joint_damping
    if joint_damping == "auto":
        joint_damping = pick(joint_losses(vectors), JOINT_GRID)
        picked["joint_damping"] = f"{joint_damping:g}, {how}"
    for name, value in picked.items():
        reporter.note(f"Picked {name.replace('_', ' ')} {value}.")
    # Fitted also where it is switched off, so that it can be switched on without another pass.
    joint = LowRankWhitening.fit(vectors, damping=1.0)
    return replace(basis, joint=replace(joint, damping=joint_damping)), picked


def _layer_losses(bare: Basis, gradients: GradientSpool, settings: IndexSettings) -> Tensor:
    """What each damping loses, summed over the layers."""
    losses = torch.zeros(len(LAYER_GRID), dtype=torch.float64)
    for layer, columns in _columns(bare):
        rows = gradients.columns(columns.start, columns.stop)
        if settings.hessian == "raw":
            losses += raw_losses(rows)
        elif settings.hessian == "kfac":  # fitted on tokens, not on these sums over passages
            losses += diagonal_losses(layer.eigenvalues.flatten(), rows, LAYER_GRID)
        else:
            losses += layer_losses(rows)
    return losses


def _columns(basis: Basis) -> list[tuple[LayerBasis, slice]]:
    """The coordinates of each layer."""
    found, start = [], 0
    for layer in basis.layers:
        found.append((layer, slice(start, start + layer.coordinates)))
        start += layer.coordinates
    return found
