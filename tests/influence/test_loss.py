"""The chunked loss against cross entropy on whole logits, in float64."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from influence import loss
from influence.loss import ROWS_PER_CHUNK, OutputHead, token_losses

D, V = 12, 50


def _head(*, scale=1.0, softcap=None, bias=False) -> OutputHead:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(V, D, generator=generator)
    return OutputHead(weight, torch.randn(V, generator=generator) if bias else None, scale, softcap)


def _rows(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, targets, and how much each row's loss weighs."""
    generator = torch.Generator().manual_seed(n)
    return (
        torch.randn(n, D, generator=generator),
        torch.randint(0, V, (n,), generator=generator),
        torch.randn(n, generator=generator),
    )


def _whole(hidden, target, head):
    """Cross entropy of whole logits, float64 throughout."""
    logits = hidden @ head.weight.double().T
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return torch.nn.functional.cross_entropy(logits, target, reduction="none")


HEADS = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.25},
    "softcap": {"softcap": 3.0},
    "all": {"bias": True, "scale": 1.7, "softcap": 5.0},
}


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("n", [1, ROWS_PER_CHUNK - 1, ROWS_PER_CHUNK, ROWS_PER_CHUNK + 1, 1300])
def test_losses_and_gradients_are_those_of_whole_logits(kind, n):
    head = _head(**HEADS[kind])
    hidden, target, weights = _rows(n)
    exact = hidden.double().requires_grad_()
    expected = _whole(exact, target, head)
    (expected * weights.double()).sum().backward()
    hidden.requires_grad_()
    got = token_losses(hidden, target, head)
    (got * weights).sum().backward()
    # Logits reach 40 here; float32 keeps 24 bits of them: 40 · 2^-24 = 2.4e-6.
    assert_close(got.double(), expected, rtol=1e-6, atol=1e-5)
    assert hidden.grad is not None
    assert exact.grad is not None
    assert (hidden.grad - exact.grad).norm() < 3e-6 * exact.grad.norm()


def test_the_size_of_a_chunk_changes_nothing(monkeypatch):
    head = _head(**HEADS["all"])
    hidden, target, _ = _rows(100)
    whole = token_losses(hidden, target, head)
    monkeypatch.setattr(loss, "ROWS_PER_CHUNK", 7)
    assert_close(token_losses(hidden, target, head), whole)


def test_no_rows_have_no_loss():
    hidden = torch.zeros(0, D, requires_grad=True)
    assert token_losses(hidden, torch.zeros(0, dtype=torch.long), _head()).shape == (0,)


def test_the_gradient_of_a_certain_prediction_is_zero_and_finite():
    head = OutputHead(1e4 * torch.eye(V, D), None)
    hidden = torch.eye(D)[:3].requires_grad_()
    got = token_losses(hidden, torch.arange(3), head)
    got.sum().backward()
    assert_close(got, torch.zeros(3))
    assert_close(hidden.grad, torch.zeros(3, D))


class _Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


@pytest.mark.parametrize("kind", HEADS)
def test_whole_logits_are_never_in_memory(kind):
    n = 4 * ROWS_PER_CHUNK
    head = _head(**HEADS[kind])
    hidden, target, weights = _rows(n)
    hidden.requires_grad_()
    saved = []
    with _Largest() as largest, saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, id):
        losses = token_losses(hidden, target, head)
    assert largest.numel <= ROWS_PER_CHUNK * V  # one chunk, against n · V whole
    assert sum(saved) <= n * D  # for the backward pass nothing but the gradient itself
    with _Largest() as largest:
        (token_losses(hidden, target, head) * weights).sum().backward()
    assert largest.numel <= ROWS_PER_CHUNK * V
    assert losses.shape == (n,)


def test_the_head_gets_no_gradient():
    head = OutputHead(torch.randn(V, D).requires_grad_(), torch.randn(V).requires_grad_())
    hidden, target, _ = _rows(5)
    token_losses(hidden.requires_grad_(), target, head).sum().backward()
    assert head.weight.grad is None
    assert head.bias is not None
    assert head.bias.grad is None


def test_a_module_without_a_head_is_refused():
    with pytest.raises(ValueError, match="no output head"):
        OutputHead.of(torch.nn.Linear(2, 2), dtype=torch.float32)
