"""Models larger than one device: spread over devices layer by layer, or sharded weight by weight.

A *spread* model was dispatched by accelerate (`device_map` of transformers): each part computes on
its own device, and parts that found no room are *offloaded*, their weights brought in when the part
runs. A *sharded* model went through `torch.distributed.fsdp.fully_shard`: every process holds a
slice of each weight, and a block's weights are gathered while it runs. Hooks see whole activations
in both cases, and no weight gradient is needed, so vectors are what they are on one device.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel


def is_spread(model: nn.Module) -> bool:
    """Whether accelerate's hooks move tensors between parts of the model."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP, of either generation, has sharded a part of the model."""
    kinds = (FSDPModule, FullyShardedDataParallel)
    return any(isinstance(module, kinds) for module in model.modules())


def offloaded(model: nn.Module) -> list[str]:
    """Names of the parameters that are nowhere in the model but while their part runs."""
    return [name for name, parameter in model.named_parameters() if parameter.is_meta]


def reshard(model: nn.Module) -> None:
    """Give up gathered weights, so that the parameters of the model are those that are kept.

    FSDP2 leaves the weights of its root gathered after a forward pass; what is set on those is
    lost with them.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class OnOneDevice:
    """Brings captured tensors to one device before they reach a receiver (`capture.Receiver`)."""

    def __init__(self, receiver: Any, device: torch.device) -> None:
        self._receiver = receiver
        self._device = device
        self.keeps_positions = bool(getattr(receiver, "keeps_positions", False))

    def on_input(self, layer: str, x: Tensor) -> Any:
        """The input, from wherever its layer is."""
        return self._receiver.on_input(layer, x.to(self._device))

    def on_gradient(self, layer: str, seen: Any, g: Tensor) -> None:
        """The gradient in the output, likewise."""
        self._receiver.on_gradient(layer, seen, g.to(self._device))
