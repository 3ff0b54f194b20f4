"""Layer inputs and output gradients by hooks, in one forward and one backward pass.

Weights stay frozen, so autograd computes activation gradients and nothing else: no weight gradient
anywhere, the input embedding included. Nothing upstream of the first attributed layer is
differentiated at all: the graph begins at its output.

A *receiver* sees each distinct input once (`on_input`; query, key and value read the same tensor)
and each output gradient together with what it made of the input (`on_gradient`). It must keep no
tensor that carries a graph.

What runs under `torch.no_grad` in the model's own forward has no gradient, and is not captured.
Gradient checkpointing changes nothing: a first pass without a graph is passed over, and gradients
arrive once. Compiled modules run uncompiled inside the block, since hooks do not reach into them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from influence.errors import InvalidInput
from influence.experts import Routed, replaced_forward
from influence.layers import LinearLayer
from influence.modules import by_example, first_argument, view_of
from influence.placement import reshard
from influence.wiring import Wiring


class Receiver(Protocol):
    """What is done with the captured tensors.

    Fused experts give each expert the rows routed to it, closed up, so that T is the most rows of
    one example. A receiver with a true attribute ``keeps_positions`` gets them in their places in
    the sequence instead, which costs more.
    """

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
    flags = {n: p.requires_grad for n, p in model.named_parameters(remove_duplicate=False)}
    try:
        model.eval()
        model.requires_grad_(False)
        yield
    finally:
        reshard(model)
        for module, training in modes:
            module.training = training
        # By name: a parameter that was offloaded is another tensor every time it comes back.
        for name, parameter in model.named_parameters(remove_duplicate=False):
            parameter.requires_grad_(flags[name])


class _Source(torch.autograd.Function):
    """The identity, as the beginning of a graph: no leaf, so what follows may write in place."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None]:
        return None, None


class _InputMemory:
    """The last input seen, so that layers which share it share what is computed from it."""

    def __init__(self, leaders: dict[str, str]) -> None:
        self.leaders = leaders
        self.clear()

    def clear(self) -> None:
        self.leader: str | None = None
        self.x: Tensor | None = None
        self.version = 0
        self.value: Any = None

    def recall(self, layer: str, x: Tensor, make: Callable[[], Any]) -> Any:
        leader = self.leaders.get(layer, layer)
        # A tensor that was written to in place is another input.
        version = 0 if x.is_inference() else x._version
        if self.x is not x or self.version != version or self.leader != leader:
            self.value = make()
            self.x, self.version, self.leader = x, version, leader
        return self.value


class _Observer:
    """Turns calls of layers into calls of the receiver."""

    def __init__(
        self,
        receiver: Receiver,
        leaders: dict[str, str],
        examples: int | None,
        real: Tensor | None,
    ) -> None:
        self.receiver = receiver
        self.memory = _InputMemory(leaders)
        self.examples = examples
        self.real = real
        self.in_place = bool(getattr(receiver, "keeps_positions", False))
        self.anchor = torch.zeros((), requires_grad=True)

    def begin(self, output: Tensor) -> Tensor:
        """An output that is part of a graph."""
        if output.requires_grad:
            return output
        begun = _Source.apply(output, self.anchor)
        assert isinstance(begun, Tensor)
        return begun

    def of_module(self, parts: dict[int, str]) -> Any:
        """A forward hook for the parts of a module: their numbers -> the names of their layers."""

        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor | None:
            if not torch.is_grad_enabled():
                return None
            if not isinstance(output, Tensor):
                raise InvalidInput(
                    f"The layer {next(iter(parts.values()))} gives a {type(output).__name__}, not "
                    "a tensor. Leave it out by its name: --layers '!NAME'."
                )
            key = first_argument(args, kwargs)
            seen = {}
            for number, name in parts.items():
                view = view_of(module, number, (args, kwargs), self.examples)
                value = self.memory.recall(
                    name, key, lambda v=view, n=name: self.receiver.on_input(n, v.x.detach())
                )
                seen[name] = (value, view.gradient)
            output = self.begin(output)
            if self.examples and self.examples > 1 and output.dim() > 1 and len(output) == 1:
                # One row for all examples, such as positions: each example has its own gradient.
                output = output.expand(self.examples, *output.shape[1:])

            def on_gradient(g: Tensor) -> None:
                for name, (value, gradient) in seen.items():
                    self.receiver.on_gradient(name, value, gradient(g.detach()))

            output.register_hook(on_gradient)
            return output

        return hook

    def of_weight(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        """For a product with a bare weight."""
        if not torch.is_grad_enabled():
            return output
        value = self.receiver.on_input(name, by_example(x, self.examples).detach())
        output = self.begin(output)
        output.register_hook(
            lambda g: self.receiver.on_gradient(name, value, by_example(g.detach(), self.examples))
        )
        return output

    def of_experts(self, names: dict[tuple[str, int], str]) -> Any:
        """For the products of fused experts: (parameter, expert) -> the name of the layer."""
        if self.examples is None:
            raise ValueError("fused experts need to be told the number of examples of the batch.")
        examples = self.examples

        def observe(
            parameter: str, expert: int, rows: Tensor, total: int, x: Tensor, output: Tensor
        ) -> Tensor:
            name = names.get((parameter, expert))
            if name is None or not torch.is_grad_enabled():
                return output
            routed = Routed.of(rows, total, examples, self.real, in_place=self.in_place)
            value = self.receiver.on_input(name, routed.spread(x.detach()))
            output = self.begin(output)
            output.register_hook(
                lambda g: self.receiver.on_gradient(name, value, routed.spread(g.detach()))
            )
            return output

        return observe


class BareProducts(TorchFunctionMode):
    """Sees products with weights that no module of its own multiplies, such as a router's."""

    def __init__(
        self,
        owners: list[tuple[nn.Module, str]],
        seen: Callable[[str, Tensor, Tensor], Tensor],
    ) -> None:
        super().__init__()
        # Not their weights: those of a model in several places are others each time it runs.
        self.owners = [(owner._parameters, name) for owner, name in owners]
        self.seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if func is nn.functional.linear:
            called = dict(zip(("input", "weight"), args, strict=False)) | (kwargs or {})
            for parameters, name in self.owners:
                if parameters["weight"] is called["weight"]:
                    return self.seen(name, called["input"], output)
        return output


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Compiled modules run as they were written; hooks set after compilation would be ignored."""
    is_compiled = any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    if not is_compiled:  # the compiler takes seconds to import
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[LinearLayer],
    receiver: Receiver,
    *,
    leaders: dict[str, str] | None = None,
    examples: int | None = None,
    real: Tensor | None = None,
) -> Iterator[None]:
    """Send inputs and output gradients of ``layers`` to ``receiver``; hooks leave with the block.

    Args:
        model: The model; frozen inside the block and given back exactly as it came.
        layers: The attributed layers.
        receiver: Gets the tensors.
        leaders: For each layer the first layer that reads the same input (`shared_inputs`); layers
            of one leader share one `on_input` call as long as they really see the same tensor.
        examples: B; None: the first axis of every layer's input, ``[B, …, d_in]``.
        real: Which tokens are no padding, ``[B, T]``; fused experts leave padding out.

    Raises:
        InvalidInput: In the forward pass: a layer whose rows cannot be told apart by example.
    """
    with (
        frozen(model),
        uncompiled(model),
        observed(model, layers, receiver, leaders=leaders, examples=examples, real=real),
        torch.enable_grad(),
    ):
        yield


@contextmanager
def observed(
    model: nn.Module,
    layers: Sequence[LinearLayer],
    receiver: Receiver,
    *,
    leaders: dict[str, str] | None = None,
    examples: int | None = None,
    real: Tensor | None = None,
) -> Iterator[None]:
    """As `capture`, of a model that is left as it is, such as one in training.

    The hooks read what passes by; outputs and gradients are the bits that they are without.
    """
    wiring = Wiring.of(model, layers)
    observer = _Observer(receiver, leaders or {}, examples, real)
    with ExitStack() as stack:
        stack.callback(observer.memory.clear)
        for module, parts in wiring.hooked:
            hook = module.register_forward_hook(observer.of_module(parts), with_kwargs=True)
            stack.callback(hook.remove)
        for module, names in wiring.experts:
            observe = observer.of_experts(names)
            stack.enter_context(replaced_forward(module, observe))
        if wiring.weights:
            stack.enter_context(BareProducts(wiring.weights, observer.of_weight))
        yield


def shared_inputs(model: nn.Module, layers: Sequence[LinearLayer], forward: Any) -> dict[str, str]:
    """Which layers read the same tensor: each layer's name -> the first such layer's name.

    A layer that the forward pass does not call has no entry.

    Args:
        model: The model.
        layers: The attributed layers.
        forward: Called without arguments; runs the model once on any small input.
    """
    first_reader: dict[tuple[int, int], str] = {}
    leaders: dict[str, str] = {}
    alive: list[Tensor] = []  # an id is unique only while its tensor lives
    wiring = Wiring.of(model, layers)

    def hook_for(names: list[str], *, shares: bool) -> Any:
        def hook(_module: nn.Module, args: Any, kwargs: Any) -> None:
            x = first_argument(args, kwargs)
            alive.append(x)
            key = (id(x), 0 if x.is_inference() else x._version)
            for name in names:
                leader = first_reader.setdefault(key, name) if shares else name
                leaders.setdefault(name, leader)

        return hook

    def called(name: str, _x: Tensor, output: Tensor) -> Tensor:
        leaders.setdefault(name, name)
        return output

    with ExitStack() as stack:
        stack.enter_context(uncompiled(model))
        stack.enter_context(torch.no_grad())
        for module, parts in wiring.hooked:
            hook = hook_for(list(parts.values()), shares=wiring.is_plain(module))
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        for module, names in wiring.experts:
            hook = hook_for(list(names.values()), shares=False)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        if wiring.weights:
            stack.enter_context(BareProducts(wiring.weights, called))
        forward()
    return {layer.name: leaders[layer.name] for layer in layers if layer.name in leaders}
