"""The loss of a causal language model, summed over target tokens, without whole logits.

``L(z) = -Σ_t log p(x_t | x_<t)``. The logits of all target rows would be ``[n, V]``: 400 MB in
float32 for 2,048 rows of a 49k vocabulary, and as much again for their gradient. So the head is
applied to a few hundred rows at a time, and the gradient in the hidden states is computed in the
same visit: ``dL_t/dh = (softmax(z_t) - onehot(x_t)) W``. The head's own weight gets no gradient.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from influence.layers import output_head
from influence.placement import is_sharded, is_spread

ROWS_PER_CHUNK = 512  # below about 256 rows the products with the vocabulary lose their speed


@dataclass(frozen=True)
class OutputHead:
    """``logits = cap(scale * (h Wᵀ + b))`` with ``cap(z) = softcap * tanh(z / softcap)``."""

    weight: Tensor  # [V, d]
    bias: Tensor | None  # [V]
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: nn.Module, *, dtype: torch.dtype) -> "OutputHead":
        """The head of a transformers causal language model, in the dtype of the products.

        Raises:
            ValueError: The model has none that is a plain product.
        """
        head = cls.find(model, dtype=dtype)
        if head is None:
            raise ValueError(
                f"{type(model).__name__} declares no output head; give a causal language model."
            )
        return head

    @classmethod
    def find(cls, model: nn.Module, *, dtype: torch.dtype) -> "OutputHead | None":
        """As `of`; None where the model declares no head, or one that is quantised or adapted.

        Nor is there one in a spread or sharded model: its weight is elsewhere, or in pieces, when
        the model does not run.
        """
        if is_spread(model) or is_sharded(model):
            return None
        head = output_head(model)
        weight = getattr(head, "weight", None)
        if not isinstance(weight, Tensor) or not weight.is_floating_point() or weight.dim() != 2:
            return None
        if hasattr(head, "base_layer"):  # adapted: more than its weight
            return None
        config: Any = model.config
        config = getattr(config, "text_config", None) or config
        scale = float(getattr(config, "logit_scale", None) or 1.0)
        scale /= float(getattr(config, "logits_scaling", None) or 1.0)
        bias = getattr(head, "bias", None)
        return cls(
            weight=weight.detach().to(dtype),
            bias=None if bias is None else bias.detach(),
            scale=scale,
            softcap=getattr(config, "final_logit_softcapping", None),
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """``[n, d]`` -> ``[n, V]`` in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            logits = torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight).float()
        if self.bias is not None:
            logits += self.bias
        return self.shaped(logits)

    def shaped(self, logits: Tensor) -> Tensor:
        """Scale and cap products of the head, ``[…, V]`` float32; may write to them in place."""
        if self.scale != 1.0:
            logits *= self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits.div_(self.softcap)).mul_(self.softcap)
        return logits


class WholeLogits:
    """In the place of an `OutputHead` where a model gives its logits itself."""

    def logits(self, hidden: Tensor) -> Tensor:
        """``[n, V]`` as they are, in float32."""
        return hidden.float()


class _TokenLosses(torch.autograd.Function):
    """Negative log-likelihood of each row; the gradient in ``hidden`` is made on the way."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, target: Tensor, head: OutputHead) -> Tensor:
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            logits = head.logits(hidden[rows])  # [n, V]
            wanted = target[rows, None]
            of_target, peak = logits.gather(1, wanted), logits.amax(dim=1, keepdim=True)
            slope = None if head.softcap is None else 1 - (logits / head.softcap).square()
            # Softmax in place: one exponential a logit, and the only [n, V] array.
            residual = logits.sub_(peak).exp_()
            total = residual.sum(dim=1, keepdim=True)
            losses[rows] = (peak + total.log() - of_target).squeeze(1)
            residual /= total
            residual.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=residual.dtype))
            if slope is not None:
                residual *= slope
            with torch.autocast(hidden.device.type, enabled=False):
                product = residual.to(head.weight.dtype) @ head.weight
            gradient[rows] = product.to(gradient.dtype)
        if head.scale != 1.0:
            gradient *= head.scale
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0][:, None].to(gradient.dtype), None, None


def token_losses(hidden: Tensor, target: Tensor, head: OutputHead) -> Tensor:
    """Negative log-likelihood of each target, in nats, differentiable in ``hidden`` alone.

    Args:
        hidden: Last hidden states of the rows that predict a target, ``[n, d]``.
        target: The predicted token ids, ``[n]``.
        head: The output head; frozen.

    Returns:
        ``-log p(target)`` of each row, ``[n]``, float32.
    """
    losses = _TokenLosses.apply(hidden, target, head)
    assert isinstance(losses, Tensor)
    return losses
