"""Models with quantised weights: the gradients are those of a model with the dequantised ones.

The weights themselves need no gradient: inputs and output gradients are all that is captured.
"""

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from influence.encoder import GradientEncoder
from influence.layers import coverage, select_layers


class PackedLinear(nn.Module):
    """8 bits a weight and a scale a row, as libraries write it: no parameter, integers packed."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("packed", (linear.weight.detach() / scale).round().to(torch.int8))

    def dequantised(self) -> Tensor:
        return self.get_buffer("packed").float() * self.get_buffer("scale")

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.dequantised().T


def packed(linear: nn.Linear) -> tuple[nn.Module, Tensor]:
    layer = PackedLinear(linear)
    return layer, layer.dequantised()


def bitsandbytes_4_bit(linear: nn.Linear) -> tuple[nn.Module, Tensor]:
    bnb = importlib.import_module("bitsandbytes")
    layer = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.float32,
        quant_type="nf4",
    )
    layer.load_state_dict({"weight": linear.weight.detach()})
    layer = layer.to("cpu")  # packs
    unpacked = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return layer, unpacked.float()


def torchao_8_bit(linear: nn.Linear) -> tuple[nn.Module, Tensor]:
    quantization = importlib.import_module("torchao.quantization")
    layer = nn.Linear(linear.in_features, linear.out_features, bias=False)
    layer.load_state_dict({"weight": linear.weight.detach()})
    quantization.quantize_(layer, quantization.Int8WeightOnlyConfig())
    return layer, layer.weight.dequantize().float()


def swap(model: nn.Module, make: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """Every linear layer of the trunk made into another."""
    trunk = model.get_submodule("model")
    linear = {name: m for name, m in trunk.named_modules() if isinstance(m, nn.Linear)}
    for name, module in linear.items():
        parent, _, leaf = name.rpartition(".")
        setattr(trunk.get_submodule(parent), leaf, make(module))
    return model


@pytest.mark.filterwarnings("ignore")  # of the libraries, about each other
@pytest.mark.parametrize(
    ("quantised", "library"),
    [(packed, None), (bitsandbytes_4_bit, "bitsandbytes"), (torchao_8_bit, "torchao")],
)
def test_gradients_are_those_of_the_dequantised_model(
    quantised, library, new_causal, as_task, new_basis, new_sequences
):
    if library is not None:
        pytest.importorskip(library)
    # Widths that blocks of 64 weights divide.
    settings = {"hidden_size": 64, "intermediate_size": 128, "initializer_range": 0.1}
    small = swap(new_causal("llama", **settings), lambda linear: quantised(linear)[0])

    def plain(linear: nn.Linear) -> nn.Linear:
        layer = nn.Linear(linear.in_features, linear.out_features, bias=False)
        layer.weight.data = quantised(linear)[1]
        return layer

    wide = swap(new_causal("llama", **settings), plain)
    found = []
    for model in (small, wide):
        task, sequences = as_task(model), new_sequences()
        basis = new_basis(task, sequences[0])
        assert coverage(model, select_layers(model)).share_of_linear == 1
        assert len(basis.layers) == 14
        found.append(GradientEncoder(task, basis).encode(sequences).vectors)
    error = (found[0] - found[1]).norm(dim=1) / found[1].norm(dim=1)
    assert error.max() < 1e-5  # the order of float32 sums
