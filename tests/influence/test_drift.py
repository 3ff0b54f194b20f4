"""The share of a gradient that a basis does not keep, against whole gradients by autograd."""

import pytest
import torch

from influence.basis import Basis, LayerBasis
from influence.drift import gradient_energy, outside_shares
from influence.encoder import LanguageModelLoss, input_leaders
from influence.layers import select_layers


def _basis(loaded, *, rank: int) -> Basis:
    layers = select_layers(loaded.model, ("*",))
    leaders = input_leaders(loaded, layers)
    generator = torch.Generator().manual_seed(0)

    def directions(width: int) -> torch.Tensor:
        q, _ = torch.linalg.qr(torch.randn(width, min(rank, width), generator=generator))
        return q.T.contiguous()

    inputs = dict.fromkeys(leaders.values())
    for layer in layers:
        leader = leaders[layer.name]
        if inputs[leader] is None:
            inputs[leader] = directions(layer.d_in)
    made = []
    for layer in layers:
        p_in, p_out = inputs[leaders[layer.name]], directions(layer.d_out)
        ones = torch.ones(len(p_out), len(p_in)).double()
        made.append(LayerBasis(layer.name, leaders[layer.name], p_in, p_out, ones))
    return Basis(tuple(made), 0.1, 64, 0)


@pytest.mark.parametrize("shape", [(3, 2, 9, 8), (3, 40, 4, 5)])  # over pairs; entry by entry
def test_the_energy_is_that_of_the_whole_gradient(shape):
    B, T, d_in, d_out = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(B, T, d_in, generator=generator)
    g = torch.randn(B, T, d_out, generator=generator)
    whole = torch.einsum("bto,bti->boi", g.double(), x.double()).square().sum(dim=(1, 2))
    torch.testing.assert_close(gradient_energy(x, g).double(), whole, rtol=1e-5, atol=0)


def test_shares_are_those_of_autograd(loaded, token_sequence, explicit_gradients):
    basis = _basis(loaded, rank=6)
    passages = [token_sequence(length, seed=length) for length in (5, 9, 16)]
    got = outside_shares(LanguageModelLoss(loaded), basis, passages)
    names = [layer.name for layer in basis.layers]
    for share, passage in zip(got, passages, strict=True):
        gradients = explicit_gradients(loaded.model, names, passage)
        kept = sum(
            (layer.p_out.double() @ gradients[layer.name] @ layer.p_in.double().T).square().sum()
            for layer in basis.layers
        )
        whole = sum(gradient.square().sum() for gradient in gradients.values())
        # float32 gradients; the share is of order 1.
        assert float(share) == pytest.approx(float(1 - kept / whole), abs=1e-4)


def test_a_layer_called_twice_has_one_gradient(as_loaded, new_llama, tokenizer, token_sequence):
    loaded = as_loaded(new_llama(num_hidden_layers=2), tokenizer)
    blocks = loaded.model.model.layers
    blocks[1].mlp = blocks[0].mlp  # as in models whose blocks share their weights
    basis = _basis(loaded, rank=6)
    passage = token_sequence(12)
    (got,) = outside_shares(LanguageModelLoss(loaded), basis, [passage])
    model = loaded.model.requires_grad_(True)
    ids = torch.tensor([passage.input_ids])
    losses = model(input_ids=ids).logits[0].log_softmax(-1)[:-1]
    loss = -losses.gather(1, ids[0, 1:, None]).sum()
    modules = [model.get_submodule(layer.name) for layer in basis.layers]
    gradients = torch.autograd.grad(loss, [module.weight for module in modules])
    kept = sum(
        (layer.p_out @ gradient @ layer.p_in.T).square().sum()
        for layer, gradient in zip(basis.layers, gradients, strict=True)
    )
    whole = sum(gradient.square().sum() for gradient in gradients)
    assert float(got) == pytest.approx(float(1 - kept / whole), abs=1e-4)
