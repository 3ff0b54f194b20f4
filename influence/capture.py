"""Layer inputs and output gradients by hooks, in one forward and one backward pass.

Weights stay frozen, so autograd computes activation gradients and nothing else: no weight gradient
anywhere, the input embedding included. Nothing upstream of the first attributed layer is
differentiated at all: an output that does not yet require a gradient is made a leaf.

A *receiver* sees each distinct input once (`on_input`; query, key and value read the same tensor)
and each output gradient together with what it made of the input (`on_gradient`). It must keep no
tensor that carries a graph.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from influence.layers import LinearLayer


class Receiver(Protocol):
    """What is done with the captured tensors."""

    def on_input(self, layer: str, x: Tensor) -> Any:
        """Called in the forward pass with the detached input, ``[B, T, d_in]``."""

    def on_gradient(self, layer: str, seen: Any, g: Tensor) -> None:
        """Called in the backward pass with the gradient in the output, ``[B, T, d_out]``.

        ``seen`` is what `on_input` returned for the input of the same call of the layer.
        """


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no weight gradients inside; the model as it came afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in flags:
            parameter.requires_grad_(requires_grad)


class _InputMemory:
    """The last input seen, so that layers which share it share what is computed from it."""

    def __init__(self, leaders: dict[str, str]) -> None:
        self.leaders = leaders
        self.clear()

    def clear(self) -> None:
        self.leader: str | None = None
        self.x: Tensor | None = None
        self.value: Any = None

    def recall(self, layer: str, x: Tensor, receiver: Receiver) -> Any:
        leader = self.leaders.get(layer, layer)
        if self.x is not x or self.leader != leader:
            self.value = receiver.on_input(layer, x.detach())
            self.x, self.leader = x, leader
        return self.value


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[LinearLayer],
    receiver: Receiver,
    *,
    leaders: dict[str, str] | None = None,
) -> Iterator[None]:
    """Send inputs and output gradients of ``layers`` to ``receiver``; hooks leave with the block.

    Args:
        model: The model; frozen inside the block and given back exactly as it came.
        layers: The attributed layers.
        receiver: Gets the tensors.
        leaders: For each layer the first layer that reads the same input (`shared_inputs`); layers
            of one leader share one `on_input` call as long as they really see the same tensor.
    """
    memory = _InputMemory(leaders or {})

    def hook_for(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen = memory.recall(name, args[0], receiver)
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            output.register_hook(lambda g: receiver.on_gradient(name, seen, g.detach()))
            return output

        return hook

    handles = []
    with frozen(model):
        try:
            for layer in layers:
                module = model.get_submodule(layer.name)
                handles.append(module.register_forward_hook(hook_for(layer.name)))
            with torch.enable_grad():
                yield
        finally:
            for handle in handles:
                handle.remove()
            memory.clear()


def shared_inputs(model: nn.Module, layers: Sequence[LinearLayer], forward: Any) -> dict[str, str]:
    """Which layers read the same tensor: each layer's name -> the first such layer's name.

    Args:
        model: The model.
        layers: The attributed layers.
        forward: Called without arguments; runs the model once on any small input.
    """
    first_reader: dict[int, str] = {}
    leaders: dict[str, str] = {}
    alive: list[Tensor] = []  # an id is unique only while its tensor lives

    def hook_for(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            alive.append(args[0])
            leaders.setdefault(name, first_reader.setdefault(id(args[0]), name))

        return hook

    handles = [
        model.get_submodule(layer.name).register_forward_pre_hook(hook_for(layer.name))
        for layer in layers
    ]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return leaders
