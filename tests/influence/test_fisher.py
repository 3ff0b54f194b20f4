"""Sampled labels: drawn from the model's distribution, repeatable, with the right gradients."""

import pytest
import torch
from torch.testing import assert_close

from influence.basis import Basis, LayerBasis
from influence.encoder import Batch, LanguageModelLoss, input_leaders, run_backward
from influence.fisher import SampledLabelLoss, sampled_targets
from influence.layers import select_layers
from influence.loss import OutputHead
from influence.projection import ProjectionReceiver
from influence.tokens import TokenSequence

CPU = torch.device("cpu")


def test_tokens_are_drawn_with_the_probabilities_of_the_model():
    generator = torch.Generator().manual_seed(0)
    head = OutputHead(torch.randn(7, 3, generator=generator), None, scale=0.5)
    state = torch.randn(1, 3, generator=generator)
    draws = 20_000
    targets = sampled_targets(state.expand(draws, 3), head, torch.rand(draws, generator=generator))
    got = targets.bincount(minlength=7) / draws
    want = head.logits(state).softmax(dim=1)[0]
    # A share of 20,000 draws has a standard deviation of at most .0036.
    assert_close(got, want, rtol=0, atol=4 * 0.0036)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_the_ends_of_the_distribution_are_tokens_too(uniform):
    head = OutputHead(torch.zeros(5, 3), None)
    (got,) = sampled_targets(torch.ones(1, 3), head, torch.tensor([uniform])).tolist()
    assert got == {0.0: 0, 0.5: 2, 1 - 2**-24: 4}[uniform]


def test_labels_depend_on_passage_and_seed_and_not_on_the_batch(loaded, token_sequence):
    sequences = [token_sequence(length, seed=length) for length in (9, 4, 12)]
    loss = LanguageModelLoss(loaded)

    def losses(order, seed=3):
        batch = Batch.of([sequences[i] for i in order], CPU)
        with torch.no_grad():
            per_token = SampledLabelLoss(loss, seed=seed).token_losses(batch)
        return torch.zeros(len(order)).index_add(0, batch.rows, per_token)

    together = losses([0, 1, 2])
    assert_close(losses([2, 0]), together[[2, 0]], rtol=1e-5, atol=1e-5)
    assert torch.equal(losses([0, 1, 2]), together)
    assert (losses([0, 1, 2], seed=4) - together).abs().min() > 1e-3


def _coordinates(loss, basis, sequences):
    batch = Batch.of(sequences, CPU)
    receiver = ProjectionReceiver(basis.projections(torch.float32), len(sequences), CPU)
    layers = [layer.layer for layer in basis.layers]
    run_backward(loss, batch, layers, basis.leaders, receiver)
    return receiver.coordinates


def test_the_gradient_is_that_of_the_drawn_token(loaded, token_sequence, explicit_gradients):
    """Where only the last token carries loss, drawing it is replacing it."""
    layers = select_layers(loaded.model)
    leaders = input_leaders(loaded, layers)
    basis = Basis(
        tuple(
            LayerBasis(
                layer.name,
                leaders[layer.name],
                torch.eye(3, layer.d_in),
                torch.eye(2, layer.d_out),
                torch.ones(2, 3, dtype=torch.float64),
            )
            for layer in layers
        ),
        damping=0.1,
        dims=10**6,
        seed=0,
    )
    sequence = token_sequence(8, seed=1, first_target=7)
    loss = SampledLabelLoss(LanguageModelLoss(loaded), seed=5)
    got = _coordinates(loss, basis, [sequence])[0]
    candidates = []
    for token in range(400):
        replaced = TokenSequence(
            [*sequence.input_ids[:7], token], sequence.targets, sequence.offsets
        )
        candidates.append(replaced)
    plain = _coordinates(LanguageModelLoss(loaded), basis, candidates)
    drawn = int((plain - got).norm(dim=1).argmin())
    gradients = explicit_gradients(
        loaded.model, [layer.name for layer in layers], candidates[drawn]
    )
    want = torch.cat(
        [
            (layer.p_out.double() @ gradients[layer.name] @ layer.p_in.double().T).flatten()
            for layer in basis.layers
        ]
    )
    assert (got.double() - want).norm() < 1e-5 * want.norm()
