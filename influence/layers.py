"""Which layers of a model are attributed, and what share of its parameters they cover.

A linear layer ``y = W a + b`` is described by its name and its two widths. Covered are
``torch.nn.Linear`` and the ``Conv1D`` of transformers (GPT-2), whose weight is stored transposed.
The output head and embeddings are left out by default: their gradients are ruled by single tokens.
"""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from influence.errors import UnknownLayers


@dataclass(frozen=True)
class LinearLayer:
    """One attributed layer: ``d_in`` inputs, ``d_out`` outputs, under its name in the model."""

    name: str
    d_in: int
    d_out: int

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.d_in * self.d_out


@dataclass(frozen=True)
class Coverage:
    """What is attributed and what is not.

    ``share_of_linear`` counts weights of layers that multiply a matrix, the output head aside;
    ``share_of_all`` counts every parameter of the model. ``left_out`` names each module with
    parameters of its own that is not attributed, with their number.
    """

    share_of_linear: float
    share_of_all: float
    left_out: dict[str, int]


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """``(d_in, d_out)`` of a layer that can be attributed; None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    return None


def select_layers(model: nn.Module, patterns: Sequence[str] = ("*",)) -> list[LinearLayer]:
    """The linear layers whose names match a pattern, in the order of the model.

    Args:
        model: Any torch module.
        patterns: Shell patterns for whole names, such as ``*.mlp.*``. The output head matches only
            a pattern without wildcards, since nearly nobody wants it by accident.

    Raises:
        UnknownLayers: A pattern matches nothing; the nearest names are listed.
    """
    head = output_head(model)
    candidates = {
        name: widths
        for name, module in model.named_modules()
        if (widths := linear_widths(module)) is not None
    }
    chosen: set[str] = set()
    for pattern in patterns:
        matches = {
            name
            for name in candidates
            if name == pattern
            or (fnmatch.fnmatchcase(name, pattern) and model.get_submodule(name) is not head)
        }
        if not matches:
            nearest = difflib.get_close_matches(pattern, candidates, n=3, cutoff=0.0)
            raise UnknownLayers(
                f"The layer pattern {pattern!r} matches none of the {len(candidates)} linear "
                f"layers of the model. The nearest names are {', '.join(nearest) or 'none'}."
            )
        chosen |= matches
    return [LinearLayer(name, *widths) for name, widths in candidates.items() if name in chosen]


def output_head(model: nn.Module) -> nn.Module | None:
    """The layer from hidden states to the vocabulary, where the model declares one."""
    get: Any = getattr(model, "get_output_embeddings", None)
    return None if get is None else get()


def coverage(model: nn.Module, layers: Iterable[LinearLayer]) -> Coverage:
    """Count the parameters that the layers cover and name what they leave out."""
    covered = {layer.name for layer in layers}
    head = output_head(model)
    total = linear = covered_weights = 0
    left_out: dict[str, int] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(id(p) for p in own)
        count = sum(p.numel() for p in own)
        total += count
        matrices = sum(p.numel() for p in own if p.dim() >= 2)
        is_lookup = isinstance(module, nn.Embedding) or module is head
        if not is_lookup:
            linear += matrices
        if name in covered:
            covered_weights += matrices
        elif count:
            left_out[name] = count
    return Coverage(
        share_of_linear=covered_weights / linear if linear else 0.0,
        share_of_all=covered_weights / total if total else 0.0,
        left_out=left_out,
    )
