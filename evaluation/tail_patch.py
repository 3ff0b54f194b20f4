"""Tail-patch (Chang et al. 2024, arXiv 2410.17413): train a little on the proponents, ask again.

If passages taught the model an answer, one more training step on them makes the answer likelier
than a step on others does. It needs no retraining, so it runs on models of any size.

The step is one of gradient descent on the mean loss of the passages' tokens, of a length that is a
share of the norm of the weights: ``θ - s ‖θ‖ g / ‖g‖``. The same length whatever the passages, as
an optimizer that normalises gives it, so that no ranking wins by finding passages with large
gradients. The output head stays as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from influence.capture import frozen
from influence.encoder import LanguageModelLoss
from influence.errors import InvalidInput, NumericalError
from influence.tokens import TokenSequence

STEP = 1e-3  # length of the step, as a share of the norm of the weights


def log_likelihoods(task: LanguageModelLoss, sequences: Sequence[TokenSequence]) -> Tensor:
    """Of the targets of each sequence, nats, ``[n]``."""
    with frozen(task.model), torch.no_grad():
        return -task.losses(task.batch(sequences)).double().cpu()


@contextmanager
def one_step(
    task: LanguageModelLoss, passages: Sequence[TokenSequence], *, step: float = STEP
) -> Iterator[None]:
    """Inside, the model is one training step on passages further; after it, it is as it was.

    Args:
        task: The model, in float32.
        passages: What it is trained on, in one batch.
        step: Length of the step, as a share of the norm of the weights.

    Raises:
        InvalidInput: The products of the model are not float32.
        NumericalError: The gradient is zero or not finite.
    """
    if task.product_dtype != torch.float32:
        raise InvalidInput(
            f"The model is loaded in {task.loaded.dtype}, whose weights swallow a small step. Load "
            "it in float32."
        )
    model: Any = task.model
    with frozen(model):
        weights = [w for w in model.parameters() if w.is_floating_point()]
        gradients = _gradients(task, weights, passages)
        moved = [(w, g) for w, g in zip(weights, gradients, strict=True) if g is not None]
        length = _norm([g for _, g in moved])
        if not 0 < length < float("inf"):
            raise NumericalError(
                f"The gradient of {len(passages)} passages has norm {length}, so no step can be "
                "made on them. Give passages with tokens that carry loss."
            )
        scale = step * _norm([w.detach() for w, _ in moved]) / length
        kept = [w.detach().clone() for w, _ in moved]
        try:
            with torch.no_grad():
                for weight, gradient in moved:
                    weight.sub_(gradient, alpha=scale)
            yield
        finally:
            with torch.no_grad():
                for (weight, _), before in zip(moved, kept, strict=True):
                    weight.copy_(before)  # the same bits


def tail_patch(
    task: LanguageModelLoss,
    query: TokenSequence,
    passages: Sequence[TokenSequence],
    *,
    step: float = STEP,
) -> float:
    """How much one step on passages raises the log-likelihood of an answer, in nats."""
    before = log_likelihoods(task, [query])
    with one_step(task, passages, step=step):
        after = log_likelihoods(task, [query])
    return float(after - before)


def _gradients(
    task: LanguageModelLoss, weights: list[Tensor], passages: Sequence[TokenSequence]
) -> tuple[Tensor | None, ...]:
    for weight in weights:
        weight.requires_grad_(True)
    batch = task.batch(passages)
    with torch.enable_grad():
        mean = task.losses(batch).sum() / batch.target_counts.sum()
    return torch.autograd.grad(mean, weights, allow_unused=True)


def _norm(tensors: Sequence[Tensor]) -> float:
    return float(torch.stack([t.double().norm() for t in tensors]).norm())
