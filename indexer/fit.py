"""Fit the basis of an index on a sample of its corpus (`influence.basis`).

Two passes of the model over the sample: covariances of layer inputs and output gradients, whose
leading eigenvectors become the projections; then projected gradients, whose squares are the EK-FAC
eigenvalues and whose sketches give the joint whitening. The projected gradients wait on disk
between the two uses, so memory does not grow with the sample.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indexer.batches import batches
from indexer.covariances import fit_covariances, within_tokens
from indexer.halving import Halving
from indexer.progress import Reporter
from influence.atomic import storage_errors
from influence.basis import Basis, LayerBasis
from influence.curvature import Subspace
from influence.encoder import (
    GradientEncoder,
    LanguageModelLoss,
    input_leaders,
)
from influence.errors import NumericalError
from influence.layers import LinearLayer, select_layers
from influence.manifest import FitEntry, IndexSettings, LayerEntry
from influence.model import LoadedModel
from influence.tokens import Passage
from influence.whitening import LowRankWhitening

ROWS_PER_BLOCK = 64  # of projected gradients brought back from disk at a time


@dataclass(frozen=True)
class Fitted:
    """A basis, and what the manifest says of it."""

    basis: Basis
    layers: tuple[LayerEntry, ...]
    entry: FitEntry


def fit_basis(
    loaded: LoadedModel,
    sample: Sequence[Passage],
    settings: IndexSettings,
    *,
    spool: Path,
    reporter: Reporter,
) -> Fitted:
    """Fit projections, eigenvalues and the joint whitening.

    Args:
        loaded: The model.
        sample: Passages drawn at random from the corpus, in random order.
        settings: Rank, dims, dampings and sizes of the sample.
        spool: A file for the projected gradients; removed afterwards.
        reporter: Told how far the work is.

    Raises:
        NumericalError: Too few passages have a finite gradient.
        UnknownLayers: A pattern of the settings matches nothing.
    """
    layers = select_layers(loaded.model, settings.layers)
    loss = LanguageModelLoss(loaded)
    leaders = input_leaders(loaded, layers)
    chosen = within_tokens(sample, settings.fit_tokens)
    inputs, outputs = fit_covariances(loss, chosen, layers, leaders, settings, reporter)
    subspaces = {
        name: sketch.subspace(settings.rank, seed=settings.seed + 1)
        for name, sketch in inputs.items()
    }
    output_subspaces = {
        name: sketch.subspace(settings.rank, seed=settings.seed + 2)
        for name, sketch in outputs.items()
    }
    bare = Basis(
        tuple(
            _layer_basis(layer, leaders[layer.name], subspaces, output_subspaces)
            for layer in layers
        ),
        settings.damping,
        settings.dims,
        settings.seed,
    )
    basis, fitted_passages = _eigenvalues_and_joint(
        loaded, bare, sample, settings, spool=spool, reporter=reporter
    )
    entries = tuple(
        LayerEntry(
            name=layer.name,
            leader=leaders[layer.name],
            d_in=layer.d_in,
            d_out=layer.d_out,
            r_in=len(subspaces[leaders[layer.name]].basis),
            r_out=len(output_subspaces[layer.name].basis),
            share_kept_in=subspaces[leaders[layer.name]].share_kept,
            share_kept_out=output_subspaces[layer.name].share_kept,
        )
        for layer in layers
    )
    joint = basis.joint
    entry = FitEntry(
        passages=fitted_passages,
        covariance_passages=len(chosen),
        covariance_tokens=sum(len(p.tokens.input_ids) for p in chosen),
        share_of_curvature=_share_of_curvature(layers, leaders, subspaces, output_subspaces),
        joint_rank=0 if joint is None else len(joint.eigenvalues),
    )
    return Fitted(basis, entries, entry)


def _layer_basis(
    layer: LinearLayer, leader: str, inputs: dict[str, Subspace], outputs: dict[str, Subspace]
) -> LayerBasis:
    p_in, p_out = inputs[leader].basis.float(), outputs[layer.name].basis.float()
    eigenvalues = torch.ones(len(p_out), len(p_in), dtype=torch.float64)
    return LayerBasis(layer.name, leader, p_in, p_out, eigenvalues)


def _eigenvalues_and_joint(
    loaded: LoadedModel,
    bare: Basis,
    sample: Sequence[Passage],
    settings: IndexSettings,
    *,
    spool: Path,
    reporter: Reporter,
) -> tuple[Basis, int]:
    """Second pass: ``λ_ij = E[G_ij²]``, then the covariance of the sketched vectors."""
    encoder = GradientEncoder(loaded, bare)
    halving = Halving()
    squares = torch.zeros(bare.coordinates, dtype=torch.float64, device=loaded.device)
    total = sum(len(p.tokens.input_ids) for p in sample)
    kept = 0

    def encode(part: list[int]) -> Tensor:
        return encoder.coordinates([sample[i].tokens for i in part])[0]

    try:
        with (
            storage_errors(spool),
            spool.open("wb") as stream,
            reporter.step("Fitting: eigenvalues", total=total, unit="tokens") as advance,
        ):
            for group in batches(sample, token_budget=settings.batch_tokens):
                for part, coordinates in halving.run(sample, group, encode):
                    coordinates = coordinates[torch.isfinite(coordinates).all(dim=1)]
                    squares += coordinates.double().square().sum(dim=0)
                    stream.write(coordinates.cpu().numpy().tobytes())
                    kept += len(coordinates)
                    advance(sum(len(sample[i].tokens) for i in part))
        if kept == 0:
            raise NumericalError(
                f"None of the {len(sample)} sampled passages has a finite gradient. Use --dtype "
                "float32, and check that the model's weights are finite."
            )
        basis = _with_eigenvalues(bare, squares.cpu() / kept, settings)
        return _with_joint(basis, spool, kept, settings, loaded.device), kept
    finally:
        with suppress(OSError):  # what is wrong with the folder has been said already
            spool.unlink(missing_ok=True)


def _with_eigenvalues(bare: Basis, mean_squares: Tensor, settings: IndexSettings) -> Basis:
    layers = []
    start = 0
    for layer in bare.layers:
        values = mean_squares[start : start + layer.coordinates].view_as(layer.eigenvalues)
        start += layer.coordinates
        if settings.hessian == "identity":
            values = torch.ones_like(values)
        layers.append(LayerBasis(layer.name, layer.leader, layer.p_in, layer.p_out, values))
    return Basis(tuple(layers), bare.damping, bare.dims, bare.seed)


def _with_joint(
    basis: Basis, spool: Path, rows: int, settings: IndexSettings, device: torch.device
) -> Basis:
    stored = np.memmap(spool, dtype=np.float32, mode="r", shape=(rows, basis.coordinates))
    on_device = basis.to(device)
    sketched = [
        on_device.sketched(torch.from_numpy(stored[i : i + ROWS_PER_BLOCK].copy()).to(device))
        for i in range(0, rows, ROWS_PER_BLOCK)
    ]
    del stored
    joint = LowRankWhitening.fit(torch.cat(sketched), damping=settings.joint_damping)
    return Basis(basis.layers, basis.damping, basis.dims, basis.seed, joint)


def _share_of_curvature(
    layers: Sequence[LinearLayer],
    leaders: dict[str, str],
    inputs: dict[str, Subspace],
    outputs: dict[str, Subspace],
) -> float:
    """``Σ tr(kept A) tr(kept B) / Σ tr(A) tr(B)`` over the layers."""
    kept = whole = 0.0
    for layer in layers:
        a, b = inputs[leaders[layer.name]], outputs[layer.name]
        kept += float(a.eigenvalues.sum() * b.eigenvalues.sum())
        whole += a.trace * b.trace
    return kept / whole if whole else 1.0
