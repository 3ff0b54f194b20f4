"""From names of layers to the places in a model where their tensors are seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from influence.layers import LinearLayer, candidates
from influence.modules import is_fused_experts, is_router, linear_widths


@dataclass(frozen=True)
class Wiring:
    """Where the chosen layers are seen.

    Attributes:
        hooked: Modules with a forward hook, and the layer names of their chosen parts by number.
        experts: Fused experts, and the layer names by parameter and expert.
        weights: Modules whose layer is seen where their weight is multiplied, and its name.
    """

    hooked: list[tuple[nn.Module, dict[int, str]]]
    experts: list[tuple[nn.Module, dict[tuple[str, int], str]]]
    weights: list[tuple[nn.Module, str]]

    @classmethod
    def of(cls, model: nn.Module, layers: Sequence[LinearLayer]) -> "Wiring":
        """Find every layer in the model.

        Raises:
            AttributeError: The model has no such layer.
        """
        wanted = {layer.name for layer in layers}
        hooked: dict[str, dict[int, str]] = {}
        experts: dict[str, dict[tuple[str, int], str]] = {}
        weights: list[tuple[nn.Module, str]] = []
        found: set[str] = set()
        for candidate in candidates(model):
            name = candidate.layer.name
            if name not in wanted:
                continue
            found.add(name)
            module = model.get_submodule(candidate.module)
            if is_fused_experts(module):
                parameter, number = name.rsplit(".", 2)[-2:]
                experts.setdefault(candidate.module, {})[parameter, int(number)] = name
            elif is_router(module):
                weights.append((module, name))
            else:
                hooked.setdefault(candidate.module, {})[candidate.number] = name
        if missing := sorted(wanted - found):
            raise AttributeError(f"{type(model).__name__} has no layer {missing[0]!r}.")
        return cls(
            [(model.get_submodule(n), parts) for n, parts in hooked.items()]
            + _uses_elsewhere(model, hooked),
            [(model.get_submodule(n), names) for n, names in experts.items()],
            weights,
        )

    @staticmethod
    def is_plain(module: nn.Module) -> bool:
        """Whether layers of such modules may share what is computed from an input."""
        return linear_widths(module) is not None


def _uses_elsewhere(
    model: nn.Module, hooked: dict[str, dict[int, str]]
) -> list[tuple[nn.Module, dict[int, str]]]:
    """Other plain linear layers that share the weight of a chosen one, under the chosen name."""
    chosen: dict[int, str] = {}
    for module_name, parts in hooked.items():
        module = model.get_submodule(module_name)
        weight = module._parameters.get("weight")
        if weight is not None and linear_widths(module):
            chosen[id(weight)] = parts[0]
    return [
        (module, {0: chosen[id(weight)]})
        for name, module in model.named_modules()
        if name not in hooked
        and linear_widths(module)
        and (weight := module._parameters.get("weight")) is not None
        and id(weight) in chosen
    ]
