"""The projections of every layer: leading eigenvectors of its covariances, or random directions."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.covariances import Covariances
from influence.curvature import NYSTROM_OVERSAMPLING, Subspace, random_subspace
from influence.layers import LinearLayer
from influence.manifest import IndexSettings, LayerEntry
from influence.ranks import allocate_ranks, uniform_ranks

log = logging.getLogger(__name__)

# With rank auto: layers up to this width can have full rank, wider ones half of it.
AUTO_COLUMNS = 512
AUTO_DAMPING = 0.1  # by which ranks are weighed while the damping itself is to be picked


@dataclass(frozen=True)
class Projections:
    """Subspaces of the layers' inputs and output gradients.

    Attributes:
        layers: The attributed layers.
        leaders: For each layer the first that reads the same input.
        inputs: For each leader.
        outputs: For each layer.
    """

    layers: Sequence[LinearLayer]
    leaders: dict[str, str]
    inputs: dict[str, Subspace]
    outputs: dict[str, Subspace]

    def of(self, layer: str) -> tuple[Subspace, Subspace]:
        """Of a layer's input and of its output gradient."""
        return self.inputs[self.leaders[layer]], self.outputs[layer]

    def entries(self) -> tuple[LayerEntry, ...]:
        """What the manifest says of them."""
        found = []
        for layer in self.layers:
            a, b = self.of(layer.name)
            found.append(
                LayerEntry(
                    name=layer.name,
                    leader=self.leaders[layer.name],
                    d_in=layer.d_in,
                    d_out=layer.d_out,
                    r_in=len(a.basis),
                    r_out=len(b.basis),
                    share_kept_in=a.share_kept,
                    share_kept_out=b.share_kept,
                )
            )
        return tuple(found)

    def share_of_curvature(self) -> float:
        """``Σ tr(kept A) tr(kept B) / Σ tr(A) tr(B)`` over the layers."""
        kept = whole = 0.0
        for layer in self.layers:
            a, b = self.of(layer.name)
            kept += float(a.eigenvalues.sum() * b.eigenvalues.sum())
            whole += a.trace * b.trace
        return kept / whole if whole else 1.0


def sketch_columns(settings: IndexSettings) -> int:
    """Columns of the covariance sketches that the ranks need."""
    if settings.rank == "auto":
        return AUTO_COLUMNS
    return NYSTROM_OVERSAMPLING * settings.rank


def random_projections(
    layers: Sequence[LinearLayer], leaders: dict[str, str], settings: IndexSettings
) -> Projections:
    """Orthonormal and random, from the seed alone; no covariance is needed."""
    assert settings.rank != "auto"  # the settings refuse it
    seed = settings.seed + 2_000_000
    inputs, outputs = {}, {}
    for number, layer in enumerate(layers):
        if leaders[layer.name] == layer.name:
            inputs[layer.name] = random_subspace(settings.rank, layer.d_in, seed=seed + 2 * number)
        outputs[layer.name] = random_subspace(
            settings.rank, layer.d_out, seed=seed + 2 * number + 1
        )
    return Projections(layers, leaders, inputs, outputs)


def leading_projections(
    layers: Sequence[LinearLayer],
    leaders: dict[str, str],
    covariances: Covariances,
    settings: IndexSettings,
) -> Projections:
    """Leading eigenvectors, as many as the rank says or as the budget pays.

    Raises:
        NumericalError: A covariance is not finite or will not decompose.
    """
    most = AUTO_COLUMNS if settings.rank == "auto" else settings.rank
    inputs = {
        name: sketch.subspace(min(most, sketch.largest_rank), seed=settings.seed + 1)
        for name, sketch in covariances.inputs.items()
    }
    outputs = {
        name: sketch.subspace(min(most, sketch.largest_rank), seed=settings.seed + 2)
        for name, sketch in covariances.outputs.items()
    }
    if settings.rank == "auto":
        ranks = allocate_ranks(
            layers,
            leaders,
            {name: subspace.eigenvalues for name, subspace in inputs.items()},
            {name: subspace.eigenvalues for name, subspace in outputs.items()},
            budget_rank=settings.rank_budget,
            damping=AUTO_DAMPING if settings.damping == "auto" else settings.damping,
        )
    else:
        ranks = uniform_ranks(layers, leaders, settings.rank)
        if covariances.tokens < settings.rank:
            log.warning(
                "the covariances hold %d tokens, fewer than the rank of %d: the directions beyond "
                "them are random",
                covariances.tokens,
                settings.rank,
            )
    return Projections(
        layers,
        leaders,
        {name: subspace.leading(ranks.inputs[name]) for name, subspace in inputs.items()},
        {name: subspace.leading(ranks.outputs[name]) for name, subspace in outputs.items()},
    )
