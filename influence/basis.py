"""The basis of an index: everything between a captured gradient and a stored vector.

    layer inputs, output gradients
      -> projected gradients in the Kronecker eigenbasis       P_in, P_out
      -> half-whitened: divided by √(λ_ij + c λ̄)               eigenvalues, damping
      -> sketched to D numbers                                  seed
      -> half-whitened jointly over all layers                  low-rank covariance, joint damping

Documents and queries take the same road, so the inner product of the two ends is
``qᵀ (H + λI)⁻¹ z``. A basis is fixed when it is fitted; it never changes in use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from influence.curvature import damped_inverse_root
from influence.layers import LinearLayer
from influence.projection import LayerProjection
from influence.sketch import CountSketch
from influence.whitening import LowRankWhitening


@dataclass(frozen=True)
class LayerBasis:
    """One layer: its name, ``p_in [r_in, d_in]``, ``p_out [r_out, d_out]`` and ``λ [r_out, r_in]``.

    ``leader`` names the first layer that reads the same input (itself, where none does).
    """

    name: str
    leader: str
    p_in: Tensor
    p_out: Tensor
    eigenvalues: Tensor

    @property
    def layer(self) -> LinearLayer:
        """The layer it projects."""
        return LinearLayer(self.name, self.p_in.shape[1], self.p_out.shape[1])

    @property
    def coordinates(self) -> int:
        """``r_out · r_in``."""
        return self.eigenvalues.numel()


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
    def inverse_roots(self) -> Tensor:
        """``(λ_ij + c λ̄)^-½`` of all layers, ``[K]`` float32."""
        roots = [
            damped_inverse_root(layer.eigenvalues.double(), damping=self.damping).flatten()
            for layer in self.layers
        ]
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
        return self.sketch.forward(coordinates * self.inverse_roots)

    def whitened(self, coordinates: Tensor) -> Tensor:
        """Projected gradients ``[B, K]`` -> stored vectors before normalisation, ``[B, D]``."""
        vectors = self.sketched(coordinates)
        return vectors if self.joint is None else self.joint.forward(vectors)

    def back(self, vectors: Tensor) -> Tensor:
        """The transpose of `whitened`, ``[B, D]`` -> ``[B, K]``.

        ``⟨whitened(G), v⟩ = ⟨G, back(v)⟩``, so the score of a query's vector splits exactly over
        the coordinates of a passage, and from there over its layers and tokens.
        """
        if self.joint is not None:
            vectors = self.joint.forward(vectors)  # symmetric
        return self.sketch.transpose(vectors) * self.inverse_roots

    def to(self, device: torch.device) -> "Basis":
        """The same basis with its arrays on a device."""
        layers = tuple(
            LayerBasis(
                layer.name,
                layer.leader,
                layer.p_in.to(device),
                layer.p_out.to(device),
                layer.eigenvalues.to(device),
            )
            for layer in self.layers
        )
        joint = self.joint
        if joint is not None:
            joint = LowRankWhitening(joint.vectors.to(device), joint.eigenvalues, joint.damping)
        return Basis(layers, self.damping, self.dims, self.seed, joint)


def save_basis(basis: Basis, path: Path) -> None:
    """Write as safetensors; the caller gives a temporary name and renames."""
    tensors: dict[str, Tensor] = {}
    for layer in basis.layers:
        # Layers that share an input share one P_in, stored under the leader's name.
        tensors[f"p_in/{layer.leader}"] = layer.p_in.float().cpu().contiguous()
        tensors[f"p_out/{layer.name}"] = layer.p_out.float().cpu().contiguous()
        tensors[f"eigenvalues/{layer.name}"] = layer.eigenvalues.double().cpu().contiguous()
    if basis.joint is not None:
        tensors["joint/vectors"] = basis.joint.vectors.float().cpu().contiguous()
        tensors["joint/eigenvalues"] = basis.joint.eigenvalues.cpu().contiguous()
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
    with safe_open(path, framework="pt") as file:
        keys = set(file.keys())
        inputs = {k: file.get_tensor(k) for k in keys if k.startswith("p_in/")}
        loaded = tuple(
            LayerBasis(
                layer["name"],
                layer["leader"],
                inputs[f"p_in/{layer['leader']}"],
                file.get_tensor(f"p_out/{layer['name']}"),
                file.get_tensor(f"eigenvalues/{layer['name']}"),
            )
            for layer in layers
        )
        joint = None
        if "joint/vectors" in keys:
            joint = LowRankWhitening(
                file.get_tensor("joint/vectors"),
                file.get_tensor("joint/eigenvalues"),
                float(settings["joint_damping"]),
            )
    return Basis(loaded, float(settings["damping"]), settings["dims"], settings["seed"], joint)
