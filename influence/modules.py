"""What modules compute, seen as linear layers ``y = W a``, whose gradient is ``Σ_t g_t a_tᵀ``.

    Linear, Conv1D, quantised   one layer, ``a`` is the input
    Conv1d, Conv2d, Conv3d      one layer a group; ``a`` is an unfolded patch, T runs over positions
    Embedding                   one layer; ``a`` is one-hot, ``d_in`` the size of the vocabulary
    LayerNorm, RMSNorm …        one layer; ``a`` is 1 and ``g`` is ``∂L/∂y ∘ x̂``, so ``d_in`` is 1
    fused experts               one layer an expert and projection (`influence.experts`)
    routers                     one layer, seen where its weight is multiplied (`BareProducts`)

A layer of a module that holds several is named after the module and a number: ``conv1.3``,
``mlp.experts.down_proj.3``.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from influence.errors import InvalidInput

Group = Literal["linear", "head", "embedding", "norm"]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Part:
    """One linear layer inside a module; ``suffix`` follows the module's name."""

    suffix: str
    d_in: int
    d_out: int
    group: Group = "linear"


@dataclass(frozen=True)
class View:
    """One call of a layer: ``x [B, T, d_in]``, and its output's gradient as ``[B, T, d_out]``."""

    x: Tensor
    gradient: Callable[[Tensor], Tensor]


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """``(d_in, d_out)`` of a plain linear layer, quantised ones included; None for all else."""
    if isinstance(module, Conv1D):
        return module.weight.shape[0], module.weight.shape[1]
    # Quantised layers are known by their widths: their weights are packed in many ways.
    widths = (getattr(module, "in_features", None), getattr(module, "out_features", None))
    is_whole = isinstance(module, nn.Linear) or next(module.children(), None) is None
    if all(isinstance(width, int) for width in widths) and is_whole:
        return widths  # type: ignore[return-value]
    return None


def is_fused_experts(module: nn.Module) -> bool:
    """Experts as transformers writes them: 3-D parameters behind one forward of known form."""
    down = getattr(module, "down_proj", None)
    return (
        isinstance(down, nn.Parameter)
        and down.dim() == 3
        and down.is_floating_point()
        and hasattr(module, "_apply_gate")
        and hasattr(module, "is_transposed")
    )


def is_router(module: nn.Module) -> bool:
    """A module that chooses experts by a weight of its own, ``[experts, d_in]``."""
    weight = getattr(module, "weight", None)
    return (
        "Router" in type(module).__name__ and isinstance(weight, nn.Parameter) and weight.dim() == 2
    )


def is_norm(module: nn.Module) -> bool:
    """A normalisation with an elementwise weight."""
    weight = module._parameters.get("weight")
    return "Norm" in type(module).__name__ and weight is not None and weight.dim() == 1


def is_embedding(module: nn.Module) -> bool:
    """A plain lookup, or one scaled by a constant; not one that computes its own indices."""
    return type(module) is nn.Embedding or (
        isinstance(module, nn.Embedding) and hasattr(module, "embed_scale")
    )


def parts_of(module: nn.Module) -> list[Part]:
    """The linear layers of a module; none, where there are none that are known."""
    if widths := linear_widths(module):
        return [Part("", *widths)]
    if isinstance(module, CONVOLUTIONS):
        groups = module.groups
        d_in = module.in_channels // groups * math.prod(module.kernel_size)
        numbers = [""] if groups == 1 else [f".{n}" for n in range(groups)]
        return [Part(number, d_in, module.out_channels // groups) for number in numbers]
    if is_fused_experts(module):
        return [
            Part(f".{name}.{number}", *reversed_if(not module.is_transposed, weight.shape[1:]))
            for name, weight in expert_weights(module)
            for number in range(len(weight))
        ]
    if is_router(module):
        assert isinstance(module.weight, Tensor)
        return [Part("", module.weight.shape[1], module.weight.shape[0])]
    if is_embedding(module):
        assert isinstance(module, nn.Embedding)
        return [Part("", module.num_embeddings, module.embedding_dim, "embedding")]
    if is_norm(module):
        assert isinstance(module.weight, Tensor)
        return [Part("", 1, len(module.weight), "norm")]
    return []


def reversed_if(condition: bool, shape: Any) -> tuple[int, int]:
    """``(d_in, d_out)`` of a weight's shape, which is the other way round where ``condition``."""
    first, second = shape
    return (second, first) if condition else (first, second)


def expert_weights(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and 3-D weights of fused experts, in the order in which they are used."""
    for name in ("gate_up_proj", "up_proj", "down_proj"):
        weight = getattr(module, name, None)
        if isinstance(weight, nn.Parameter):
            yield name, weight


def by_example(values: Tensor, examples: int | None) -> Tensor:
    """``[…, d]`` -> ``[B, T, d]``: the examples are outermost, whatever else is between.

    Args:
        values: Input or gradient of a layer. One row for the whole batch is every example's.
        examples: B; None: the first axis is the examples.

    Raises:
        InvalidInput: The first axis cannot be cut into B equal parts.
    """
    width = values.shape[-1]
    rows = values.shape[0] if values.dim() > 1 else 1
    count = rows if examples is None else examples
    if rows == 1:
        return values.reshape(1, -1, width).expand(count, -1, -1)
    if rows % count:
        raise InvalidInput(
            f"A layer sees {rows} rows for {count} examples, so it cannot be told which row "
            "belongs to which. Put the examples first, or leave the layer out by its name: "
            "--layers '!NAME'."
        )
    return values.reshape(count, -1, width)


def view_of(module: nn.Module, number: int, call: tuple[Any, Any], examples: int | None) -> View:
    """One part of a module in one call.

    Args:
        module: A module with `parts_of`, neither fused experts nor a router.
        number: Which of its parts.
        call: Its positional and named arguments.
        examples: B.
    """
    args, kwargs = call
    x = first_argument(args, kwargs)
    if isinstance(module, CONVOLUTIONS):
        return _convolution(module, number, x, examples)
    if is_embedding(module):
        return _lookup(module, x, examples)
    if is_norm(module):
        return _norm(module, call, examples)
    return View(by_example(x, examples), lambda g: by_example(g, examples))


def first_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a layer reads."""
    return args[0] if args else next(iter(kwargs.values()))


def _convolution(module: Any, group: int, x: Tensor, examples: int | None) -> View:
    # Padding as the module does it, then one window an output position: [B, C, *S', *kernel].
    mode = module.padding_mode
    if any(module._reversed_padding_repeated_twice):
        x = nn.functional.pad(
            x,
            module._reversed_padding_repeated_twice,
            mode="constant" if mode == "zeros" else mode,
        )
    channels = x.shape[1] // module.groups
    x = x[:, group * channels : (group + 1) * channels]
    axes = len(module.kernel_size)
    for axis in range(axes):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        x = x.unfold(2 + axis, reach, module.stride[axis])[..., :: module.dilation[axis]]
    positions = range(2, 2 + axes)
    patches = x.permute(0, *positions, 1, *range(2 + axes, 2 + 2 * axes)).flatten(1 + axes)
    outputs = module.out_channels // module.groups

    def gradient(g: Tensor) -> Tensor:
        own = g[:, group * outputs : (group + 1) * outputs]
        return by_example(own.movedim(1, -1), examples)

    return View(by_example(patches, examples), gradient)


def _lookup(module: nn.Module, ids: Tensor, examples: int | None) -> View:
    assert isinstance(module, nn.Embedding)
    one_hot = torch.nn.functional.one_hot(ids, module.num_embeddings).float()
    if module.padding_idx is not None:  # autograd gives that row no gradient
        one_hot[..., module.padding_idx] = 0
    one_hot = one_hot * torch.as_tensor(getattr(module, "embed_scale", 1.0)).to(one_hot)
    return View(by_example(one_hot, examples), lambda g: by_example(g, examples))


def _norm(module: nn.Module, call: tuple[Any, Any], examples: int | None) -> View:
    """``x̂ = ∂y/∂w``: the output is linear in the weight, whether it is used as w or as 1 + w."""
    args, kwargs = call
    weight = module._parameters["weight"]
    assert weight is not None
    if weight.is_meta:  # its own forward would bring the weight back
        raise InvalidInput(
            f"The weight of a {type(module).__name__} is offloaded, and the gradient of a norm "
            "needs it in memory. Leave norms out of --layers, or give the model more memory."
        )
    outputs = []
    with torch.no_grad():
        try:
            for value in (torch.ones_like(weight), torch.zeros_like(weight)):
                module._parameters["weight"] = nn.Parameter(value, requires_grad=False)
                outputs.append(module.forward(*args, **kwargs))
        finally:
            module._parameters["weight"] = weight
    normalised = outputs[0] - outputs[1]
    is_channels_first = isinstance(
        module, nn.modules.batchnorm._NormBase | nn.GroupNorm
    )  # their weight runs over axis 1
    axis = 1 if is_channels_first else -1

    def gradient(g: Tensor) -> Tensor:
        return by_example((g * normalised).movedim(axis, -1), examples)

    rows = by_example(normalised.movedim(axis, -1), examples)
    return View(torch.ones_like(rows[..., :1]), gradient)
