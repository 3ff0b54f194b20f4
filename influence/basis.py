"""The basis of an index: everything between a captured gradient and a stored vector.

    layer inputs, output gradients
      -> projected gradients, by default in its eigenbasis      P_in, P_out
      -> half-whitened in each layer by (C_l + c λ̄ I)^-½        diagonal λ_ij, or low rank; damping
      -> sketched to D numbers                                  seed
      -> half-whitened jointly over all layers                  low rank; joint damping

Documents and queries take the same road, so the inner product of the two ends is
``qᵀ (H + λI)⁻¹ z``. A basis is fixed when it is fitted; it never changes in use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from influence.curvature import damped_inverse_root
from influence.layers import LinearLayer
from influence.projection import LayerProjection
from influence.sketch import CountSketch
from influence.whitening import BlockWhitening, DiagonalWhitening, LowRankWhitening, Whitening

if TYPE_CHECKING:
    from influence.store import IndexReader


@dataclass(frozen=True)
class LayerBasis:
    """One layer of a basis.

    Attributes:
        name: Its name in the model.
        leader: The first layer that reads the same input (itself, where none does).
        p_in: ``[r_in, d_in]``, orthonormal rows.
        p_out: ``[r_out, d_out]``, orthonormal rows.
        eigenvalues: ``λ [r_out, r_in]``, the diagonal of the curvature in these coordinates.
        covariance: The whole curvature ``[r_out · r_in]²`` in low rank, where the index uses it
            (``--hessian raw``); its damping is that of the basis.
        roots: ``[r_out, r_in]``, what half-whitens in the place of ``(λ + c λ̄)^-½``, where the
            index follows training (`influence.unrolled`); it has no damping.
    """

    name: str
    leader: str
    p_in: Tensor
    p_out: Tensor
    eigenvalues: Tensor
    covariance: LowRankWhitening | None = None
    roots: Tensor | None = None

    @property
    def layer(self) -> LinearLayer:
        """The layer it projects."""
        return LinearLayer(self.name, self.p_in.shape[1], self.p_out.shape[1])

    @property
    def coordinates(self) -> int:
        """``r_out · r_in``."""
        return self.eigenvalues.numel()

    def whitening(self, damping: float) -> Whitening:
        """``(C + c λ̄ I)^-½`` of this layer; 0 for a layer that no gradient reached."""
        if self.covariance is None:
            return DiagonalWhitening(self.inverse_roots(damping).flatten().float())
        if not self.covariance.eigenvalues.numel():
            return DiagonalWhitening(torch.zeros(self.coordinates, device=self.p_in.device))
        return replace(self.covariance, damping=damping)

    def inverse_roots(self, damping: float) -> Tensor:
        """``(λ_ij + c λ̄)^-½``, or the roots given, ``[r_out, r_in]``."""
        if self.roots is not None:
            return self.roots
        return damped_inverse_root(self.eigenvalues.double(), damping=damping)

    def to(self, device: torch.device) -> "LayerBasis":
        """The same layer with its arrays on a device."""
        covariance = self.covariance
        return replace(
            self,
            p_in=self.p_in.to(device),
            p_out=self.p_out.to(device),
            eigenvalues=self.eigenvalues.to(device),
            covariance=None if covariance is None else covariance.to(device),
            roots=None if self.roots is None else self.roots.to(device),
        )


@dataclass(frozen=True)
class Basis:
    """A fitted basis; see the module.

    Attributes:
        layers: In the order of the model.
        damping: ``c`` of every layer's own whitening.
        dims: ``D`` asked for; a vector has ``min(D, coordinates)`` numbers.
        seed: Of the sketch.
        joint: The whitening across layers, ``None`` until it is fitted.
    """

    layers: tuple[LayerBasis, ...]
    damping: float
    dims: int
    seed: int
    joint: LowRankWhitening | None = None

    @property
    def coordinates(self) -> int:
        """Number of projected coordinates of all layers."""
        return sum(layer.coordinates for layer in self.layers)

    @property
    def vector_dims(self) -> int:
        """Length of a stored vector."""
        return min(self.dims, self.coordinates)

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self.layers[0].p_in.device

    @cached_property
    def leaders(self) -> dict[str, str]:
        """For `capture`: which layers share an input."""
        return {layer.name: layer.leader for layer in self.layers}

    @cached_property
    def layer_whitening(self) -> Whitening:
        """Each layer's own whitening, over all ``K`` coordinates."""
        if any(layer.covariance is not None for layer in self.layers):
            return BlockWhitening(
                [(layer.coordinates, layer.whitening(self.damping)) for layer in self.layers]
            )
        return DiagonalWhitening(self.inverse_roots)

    @cached_property
    def inverse_roots(self) -> Tensor:
        """``(λ_ij + c λ̄)^-½`` of all layers, ``[K]`` float32: the whitening if it is diagonal."""
        roots = [layer.inverse_roots(self.damping).flatten() for layer in self.layers]
        return torch.cat(roots).float()

    @cached_property
    def sketch(self) -> CountSketch:
        """From ``K`` coordinates to ``D``."""
        return CountSketch(self.coordinates, self.dims, seed=self.seed, device=self.device)

    def projections(self, dtype: torch.dtype) -> list[LayerProjection]:
        """The layers' projections in the dtype of the matrix products."""
        shared: dict[str, Tensor] = {}
        return [
            LayerProjection(
                layer.name,
                shared.setdefault(layer.leader, layer.p_in.to(dtype)),
                layer.p_out.to(dtype),
            )
            for layer in self.layers
        ]

    def sketched(self, coordinates: Tensor) -> Tensor:
        """Projected gradients ``[B, K]`` -> half-whitened and sketched, ``[B, D]``."""
        return self.sketch.forward(self.layer_whitening.forward(coordinates))

    def whitened(self, coordinates: Tensor) -> Tensor:
        """Projected gradients ``[B, K]`` -> stored vectors before normalisation, ``[B, D]``."""
        vectors = self.sketched(coordinates)
        return vectors if self.joint is None else self.joint.forward(vectors)

    def back(self, vectors: Tensor) -> Tensor:
        """The transpose of `whitened`, ``[B, D]`` -> ``[B, K]``.

        ``⟨whitened(G), v⟩ = ⟨G, back(v)⟩``, so the score of a query's vector splits exactly over
        the coordinates of a passage, and from there over its layers and tokens.
        """
        # Both whitenings are symmetric.
        if self.joint is not None:
            vectors = self.joint.forward(vectors)
        return self.layer_whitening.forward(self.sketch.transpose(vectors))

    def to(self, device: torch.device) -> "Basis":
        """The same basis with its arrays on a device."""
        joint = None if self.joint is None else self.joint.to(device)
        layers = tuple(layer.to(device) for layer in self.layers)
        return replace(self, layers=layers, joint=joint)


def save_basis(basis: Basis, path: Path) -> None:
    """Write as safetensors; the caller gives a temporary name and renames."""
    tensors: dict[str, Tensor] = {}
    for layer in basis.layers:
        # Layers that share an input share one P_in, stored under the leader's name.
        tensors[f"p_in/{layer.leader}"] = layer.p_in.float().cpu().contiguous()
        tensors[f"p_out/{layer.name}"] = layer.p_out.float().cpu().contiguous()
        tensors[f"eigenvalues/{layer.name}"] = layer.eigenvalues.double().cpu().contiguous()
        if layer.covariance is not None:
            tensors |= _low_rank_tensors(f"covariance/{layer.name}", layer.covariance)
        if layer.roots is not None:
            tensors[f"roots/{layer.name}"] = layer.roots.float().cpu().contiguous()
    if basis.joint is not None:
        tensors |= _low_rank_tensors("joint", basis.joint)
    # Not by `save_file`, whose errors say neither that the disk is full nor its number.
    path.write_bytes(save(tensors))


def load_basis(
    path: Path, settings: Mapping[str, Any], layers: Sequence[Mapping[str, str]]
) -> Basis:
    """Read what `save_basis` wrote.

    Args:
        path: The safetensors file.
        settings: ``damping``, ``joint_damping``, ``dims`` and ``seed`` of the manifest.
        layers: ``name`` and ``leader`` of each layer, in the order of the model.
    """
    damping = float(settings["damping"])
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())

        def low_rank(name: str, damping: float) -> LowRankWhitening | None:
            if f"{name}/vectors" not in keys:
                return None
            vectors = file.get_tensor(f"{name}/vectors")
            return LowRankWhitening(vectors, file.get_tensor(f"{name}/eigenvalues"), damping)

        inputs = {k: file.get_tensor(k) for k in keys if k.startswith("p_in/")}
        loaded = tuple(
            LayerBasis(
                layer["name"],
                layer["leader"],
                inputs[f"p_in/{layer['leader']}"],
                file.get_tensor(f"p_out/{layer['name']}"),
                file.get_tensor(f"eigenvalues/{layer['name']}"),
                low_rank(f"covariance/{layer['name']}", damping),
                file.get_tensor(name) if (name := f"roots/{layer['name']}") in keys else None,
            )
            for layer in layers
        )
        joint = low_rank("joint", float(settings["joint_damping"]))
    return Basis(loaded, damping, settings["dims"], settings["seed"], joint)


def basis_of(reader: "IndexReader") -> Basis:
    """The basis of an index that is open."""
    manifest = reader.manifest
    return load_basis(
        reader.basis_path,
        manifest.settings.model_dump(),
        [{"name": layer.name, "leader": layer.leader} for layer in manifest.layers],
    )


def _low_rank_tensors(name: str, whitening: LowRankWhitening) -> dict[str, Tensor]:
    return {
        f"{name}/vectors": whitening.vectors.float().cpu().contiguous(),
        f"{name}/eigenvalues": whitening.eigenvalues.cpu().contiguous(),
    }
