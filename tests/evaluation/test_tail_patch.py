"""One training step on passages against the same step written out, and the model afterwards."""

import copy

import numpy as np
import pytest
import torch

from evaluation.tail_patch import log_likelihoods, one_step, tail_patch
from influence.encoder import LanguageModelLoss
from influence.errors import InvalidInput, NumericalError


def _plain_loss(model, sequence):
    """Mean negative log-likelihood of one sequence by the model's own logits, float64."""
    ids = torch.tensor([sequence.input_ids])
    log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(dim=-1)
    picked = log_probs.gather(1, ids[0, 1:, None])[:, 0]
    return -picked[torch.tensor(sequence.targets[1:])].mean()


def test_the_change_is_that_of_a_step_written_out(new_llama, tokenizer, as_loaded, token_sequence):
    model = new_llama(tie_word_embeddings=False)
    task = LanguageModelLoss(as_loaded(model, tokenizer))
    passages = [token_sequence(12, seed=1), token_sequence(12, seed=2)]
    query = token_sequence(9, seed=3, first_target=5)
    twin = copy.deepcopy(model).double().requires_grad_(True)
    weights = [w for name, w in twin.named_parameters() if not name.startswith("lm_head")]
    before = -_plain_loss(twin, query) * 4
    loss = sum(_plain_loss(twin, p) for p in passages) / 2  # equal lengths: the mean over tokens
    gradients = torch.autograd.grad(loss, weights)
    norm = torch.cat([w.detach().flatten() for w in weights]).norm()
    length = torch.cat([g.flatten() for g in gradients]).norm()
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= 1e-2 * norm * gradient / length
    expected = float((-_plain_loss(twin, query) * 4 - before).detach())
    got = tail_patch(task, query, passages, step=1e-2)
    # Losses of some 30 nats in float32 differ by 1e-5; the change is of the order of 1.
    assert got == pytest.approx(expected, abs=1e-4)
    assert abs(expected) > 0.01


def test_training_on_the_answer_itself_makes_it_likelier_and_untraining_less(
    loaded, token_sequence
):
    task, query = LanguageModelLoss(loaded), token_sequence(10, seed=4)
    assert tail_patch(task, query, [query]) > 0 > tail_patch(task, query, [query], step=-1e-3)


def test_the_model_is_given_back_bit_by_bit_also_after_an_error(loaded, token_sequence):
    task, query = LanguageModelLoss(loaded), token_sequence(10, seed=5)
    before = {n: p.detach().clone() for n, p in loaded.model.named_parameters()}
    flags = [p.requires_grad for p in loaded.model.parameters()]
    first = log_likelihoods(task, [query])
    with one_step(task, [query], step=0.1):
        assert not torch.equal(log_likelihoods(task, [query]), first)
    with pytest.raises(KeyError), one_step(task, [query]):
        raise KeyError
    assert all(torch.equal(before[n], p) for n, p in loaded.model.named_parameters())
    assert [p.requires_grad for p in loaded.model.parameters()] == flags
    assert torch.equal(log_likelihoods(task, [query]), first)


def test_a_step_that_cannot_be_made_is_refused(new_llama, tokenizer, as_loaded, token_sequence):
    with pytest.raises(InvalidInput, match="bfloat16, whose weights swallow"):  # noqa: PT012
        coarse = as_loaded(new_llama(), tokenizer, dtype="bfloat16")
        with one_step(LanguageModelLoss(coarse), [token_sequence(9)]):
            pass
    task = LanguageModelLoss(as_loaded(new_llama(), tokenizer))
    with pytest.raises(NumericalError), one_step(task, [token_sequence(9, first_target=99)]):
        pass


def test_first_order_it_is_the_gradient_dot_product(loaded, token_sequence, explicit_gradients):
    """For a step towards 0: the change is the step's length times ``g_q · g_z / |g_z|``."""
    task = LanguageModelLoss(loaded)
    sequences = [token_sequence(10, seed=s) for s in range(5)]
    names = [
        n.removesuffix(".weight")
        for n, p in loaded.model.named_parameters()
        if p.dim() == 2 and "emb" not in n and "wte" not in n and "wpe" not in n
    ]
    rows = [
        torch.cat([g.flatten() for g in explicit_gradients(loaded.model, names, s).values()])
        for s in sequences
    ]
    changes = np.array([tail_patch(task, sequences[0], [s], step=1e-4) for s in sequences[1:]])
    cosines = np.array([float(rows[0] @ r / r.norm()) for r in rows[1:]])
    # Weights other than those of the linear layers (embeddings, norms) move as well, so the order
    # and the sign of large ones are what is left.
    assert np.corrcoef(changes, cosines)[0, 1] > 0.9
