"""The stacked model against the Llama of transformers, one slice at a time."""

import pytest
import torch
from torch.testing import assert_close

from evaluation.stacked_llama import LlamaShape, logits, sequence_losses

SHAPE = LlamaShape(vocabulary=30, width=16, mlp_width=24, layers=2, heads=4, kv_heads=2)


@pytest.fixture
def stacked():
    # Large enough that attention and norms are far from trivial.
    return SHAPE.initial([3, 4, 5], std=0.3)


@pytest.fixture
def ids():
    return torch.randint(30, (3, 5, 9), generator=torch.Generator().manual_seed(0))


def test_logits_are_those_of_transformers(stacked, ids):
    got = logits(SHAPE, stacked, ids)
    assert got.shape == (3, 5, 9, 30)
    for number in range(3):
        assert_close(got[number], SHAPE.model(stacked, number)(ids[number]).logits)


def test_each_model_has_the_gradient_it_has_alone(stacked, ids):
    parameters = {name: values.clone().requires_grad_() for name, values in stacked.items()}
    targets = torch.ones(3, 5, 9, dtype=torch.bool)
    sequence_losses(SHAPE, parameters, ids, targets).mean(dim=1).sum().backward()
    for number in range(3):
        model = SHAPE.model(stacked, number).requires_grad_(True)
        log_probs = model(ids[number]).logits[:, :-1].log_softmax(dim=-1)
        losses = -log_probs.gather(2, ids[number][:, 1:, None]).sum(dim=(1, 2))
        losses.mean().backward()
        for name, parameter in model.named_parameters():
            stacked_gradient = parameters[name].grad
            assert stacked_gradient is not None
            assert_close(stacked_gradient[number], parameter.grad, rtol=1e-4, atol=1e-5)


def test_padding_and_what_is_no_target_changes_nothing(stacked, ids):
    targets = torch.zeros(3, 5, 9, dtype=torch.bool)
    targets[:, :, 2:5] = True
    losses = sequence_losses(SHAPE, stacked, ids, targets)
    padded = ids.clone()
    padded[:, :, 5:] = 7
    assert_close(sequence_losses(SHAPE, stacked, padded, targets), losses)
    assert_close(sequence_losses(SHAPE, stacked, ids[:, :, :5], targets[:, :, :5]), losses)


def test_a_seed_gives_the_same_weights_in_any_stack():
    together, alone = SHAPE.initial([1, 2], std=0.02), SHAPE.initial([2], std=0.02)
    assert all(torch.equal(together[name][1], alone[name][0]) for name in alone)
