"""Which layers of a model are attributed, and what share of its parameters they cover.

A linear layer ``y = W a + b`` is described by its name and its two widths; what counts as one is
said in `influence.modules`. The output head, embeddings and norms are left out by default: the
gradients of the first two are ruled by single tokens, and the last are few.
"""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from influence.errors import UnknownLayers
from influence.manifest import Target
from influence.modules import Group, Part, linear_widths, parts_of

# Patterns that choose a whole group of layers which ``*`` leaves out.
GROUPS: dict[str, Group] = {"head": "head", "embeddings": "embedding", "norms": "norm"}


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
class Candidate:
    """A layer that could be attributed: part ``number`` of a module."""

    layer: LinearLayer
    group: Group
    module: str
    number: int


@dataclass(frozen=True)
class Coverage:
    """What is attributed and what is not.

    ``share_of_linear`` counts weights of layers that multiply a matrix, the output head aside (with
    adapters as the target, those of adapters); ``share_of_all`` counts every parameter of the
    model. ``left_out`` names each module with parameters of its own that are not attributed, with
    their number.
    """

    share_of_linear: float
    share_of_all: float
    left_out: dict[str, int]


def candidates(model: nn.Module) -> Iterator[Candidate]:
    """Every layer that could be attributed, in the order of the model.

    Linear layers that share one weight are one layer, under the first name: the gradient of the
    weight is the sum over all its uses.
    """
    head = output_head(model)
    seen: set[int] = set()
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and linear_widths(module):
            if id(weight) in seen:
                continue
            seen.add(id(weight))
        for number, part in enumerate(parts_of(module)):
            group = "head" if module is head else part.group
            layer = LinearLayer(_name(name, part), part.d_in, part.d_out)
            yield Candidate(layer, group, name, number)


def _name(module: str, part: Part) -> str:
    return f"{module}{part.suffix}".removeprefix(".")


def select_layers(
    model: nn.Module, patterns: Sequence[str] = ("*",), *, target: Target = "all"
) -> list[LinearLayer]:
    """The layers whose names match a pattern, in the order of the model.

    Args:
        model: Any torch module.
        patterns: Shell patterns for whole names, such as ``*.mlp.*``; with a leading ``!`` for
            names to leave out. ``head``, ``embeddings`` and ``norms`` choose what no pattern with
            wildcards does; a single one of them is chosen by its full name.
        target: In a model with PEFT adapters: ``adapter`` for their layers, ``base`` for the layers
            of the model below, ``all`` for both; ``auto`` is ``adapter`` where there are any.

    Raises:
        UnknownLayers: A pattern matches nothing, with the nearest names; or nothing is left.
    """
    aimed_at = aim(model, target)
    found = [c for c in candidates(model) if aimed_at(c.layer.name)]
    chosen: set[str] = set()
    wanted = [p for p in patterns if not p.startswith("!")]
    for pattern in wanted or ["*"]:
        chosen |= _matching(pattern, found)
    for pattern in patterns:
        if pattern.startswith("!"):
            chosen -= _matching(pattern.removeprefix("!"), found, everything=True)
    if not chosen:
        raise UnknownLayers(
            f"The patterns {', '.join(patterns)} leave no layer of the {len(found)} that this "
            f"{type(model).__name__} has for the target {target}. Exclude less, or choose another "
            "target."
        )
    return [c.layer for c in found if c.layer.name in chosen]


def _matching(pattern: str, found: Sequence[Candidate], *, everything: bool = False) -> set[str]:
    """Names that a pattern matches; wildcards reach beyond linear layers to exclude only."""
    group = GROUPS.get(pattern)
    matches = {
        c.layer.name
        for c in found
        if c.layer.name == pattern
        or c.group == group
        or (fnmatch.fnmatchcase(c.layer.name, pattern) and (everything or c.group == "linear"))
    }
    if not matches:
        names = [c.layer.name for c in found if c.group in ("linear", "head")]
        nearest = difflib.get_close_matches(pattern, [*names, *GROUPS], n=3, cutoff=0.0)
        raise UnknownLayers(
            f"The layer pattern {pattern!r} matches none of the {len(names)} linear "
            f"layers of the model. The nearest names are {', '.join(nearest) or 'none'}."
        )
    return matches


def adapter_prefixes(model: nn.Module) -> tuple[str, ...]:
    """How the names of a PEFT model's adapter layers begin; empty for any other model."""
    return tuple(
        f"{name}.{kind}."
        for name, module in model.named_modules()
        if hasattr(module, "base_layer")
        for kind in getattr(module, "adapter_layer_names", ())
    )


def aim(model: nn.Module, target: Target) -> Callable[[str], bool]:
    """Whether a layer's name belongs to the target (`select_layers`)."""
    prefixes = adapter_prefixes(model)
    if target == "auto":  # adapters are what was trained
        target = "adapter" if prefixes else "all"
    if target == "all":
        return lambda name: True
    return lambda name: name.startswith(prefixes) == (target == "adapter")


def output_head(model: nn.Module) -> nn.Module | None:
    """The layer from hidden states to the vocabulary, where the model declares one."""
    if not hasattr(model, "get_output_embeddings"):
        return None
    whole: Any = model
    return whole.get_output_embeddings()


def coverage(
    model: nn.Module, layers: Iterable[LinearLayer], *, target: Target = "all"
) -> Coverage:
    """Count the parameters that the layers cover and name what they leave out."""
    covered = {layer.name for layer in layers}
    head = output_head(model)
    aimed_at = aim(model, target)
    total = linear = covered_linear = covered_all = 0
    left_out: dict[str, int] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        parts = parts_of(module)
        count, matrices = _own_weights(module, parts, seen)
        total += count
        is_lookup = module is head or any(p.group in ("embedding", "norm") for p in parts)
        is_lookup |= isinstance(module, nn.Embedding)
        here = sum(p.d_in * p.d_out for p in parts if _name(name, p) in covered)
        here = min(here, count)  # of a weight that is shared, nothing is left to count
        covered_all += here
        if not is_lookup:
            linear += matrices if aimed_at(f"{name}.") else 0
            covered_linear += here
        if count and (not here or here < matrices):
            left_out[name] = count - here
    return Coverage(
        share_of_linear=covered_linear / linear if linear else 0.0,
        share_of_all=covered_all / total if total else 0.0,
        left_out=left_out,
    )


def _own_weights(module: nn.Module, parts: Sequence[Part], seen: set[int]) -> tuple[int, int]:
    """Parameters of a module that no module before it has: all, and those in matrices."""
    own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
    seen.update(id(p) for p in own)
    count = sum(p.numel() for p in own)
    weight = module._parameters.get("weight")
    widths = linear_widths(module)
    if widths and (weight is None or any(p is weight for p in own)):
        # A quantised weight is packed, so that its own size says nothing.
        whole = widths[0] * widths[1]
        packed = sum(p.numel() for p in own if p.dim() >= 2 or not p.is_floating_point())
        return count - packed + whole, whole
    if parts:  # the biases of fused experts have two axes, and are biases all the same
        biases = [p for name, p in module._parameters.items() if name.endswith("bias")]
        return count, sum(p.numel() for p in own if not any(p is b for b in biases))
    return count, sum(p.numel() for p in own if _multiplies(p))


def _multiplies(parameter: nn.Parameter) -> bool:
    """Whether a parameter of an unknown module is a matrix; one of ``[1, N, d]`` is added."""
    return parameter.dim() >= 2 and not (parameter.dim() >= 3 and parameter.shape[0] == 1)
