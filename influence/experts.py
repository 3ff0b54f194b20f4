"""Fused experts, one linear layer each: the tokens an expert gets are only known as it runs.

transformers keeps the weights of all experts in 3-D parameters and multiplies them in one of
several ways, none of which calls a module a hook could sit on. So while gradients are captured,
their forward is replaced by the plain one below: one expert after the other, its tokens gathered,
its products seen. What it computes is what the model computes (tested against every one of them).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from influence.errors import InvalidInput
from influence.modules import expert_weights

# (parameter, expert, its rows of [N, d] [n], N, their input [n, d_in], their product) -> product
Observe = Callable[[str, int, Tensor, int, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Routed:
    """Which rows of ``[B · T, d]`` an expert got, and their places in ``[B, L, d]``.

    ``keep`` are those of them that are real tokens; ``example`` and ``place`` are of these.
    """

    keep: Tensor
    example: Tensor
    place: Tensor
    examples: int
    length: int

    @classmethod
    def of(
        cls, rows: Tensor, total: int, examples: int, real: Tensor | None, *, in_place: bool
    ) -> "Routed":
        """Lay out an expert's rows.

        Args:
            rows: Their numbers, rising, ``[n]``.
            total: B · T.
            examples: B.
            real: Which tokens are no padding, ``[B, T]``; None: all.
            in_place: Every row at its own position in ``[B, T, d]``; otherwise closed up, so that
                L is the most rows of one example.

        Raises:
            InvalidInput: The rows cannot be cut into B equal parts.
        """
        if total % examples:
            raise InvalidInput(
                f"Experts see {total} rows for {examples} examples, so it cannot be told which "
                "row belongs to which. Leave them out: --layers '!*experts*'."
            )
        length = total // examples
        is_real = real is not None and real.numel() == total
        keep = real.flatten()[rows] if is_real else torch.ones_like(rows, dtype=torch.bool)  # type: ignore[union-attr]
        kept = rows[keep]
        example, place = kept // length, kept % length
        if not in_place:
            counts = torch.bincount(example, minlength=examples)
            starts = counts.cumsum(0) - counts
            place = torch.arange(len(kept), device=rows.device) - starts[example]
            length = int(counts.max())
        return cls(keep, example, place, examples, length)

    def spread(self, values: Tensor) -> Tensor:
        """``[n, d]`` -> ``[B, L, d]``, 0 where there is no row."""
        out = values.new_zeros(self.examples, self.length, values.shape[-1])
        out[self.example, self.place] = values[self.keep]
        return out


@contextmanager
def replaced_forward(module: nn.Module, observe: Observe) -> Iterator[None]:
    """The plain forward inside the block, telling ``observe`` of every product."""
    check_supported(module)
    own = module.__dict__.get("forward")  # set on the instance by whoever came before us
    try:
        module.forward = partial(_forward, module, observe)
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.forward = own


def check_supported(module: Any) -> None:
    """Refuse experts that are spread over several machines.

    Raises:
        InvalidInput: They are.
    """
    if getattr(module, "_is_expert_parallel", False) or hasattr(module, "_hf_hook"):
        raise InvalidInput(
            f"The experts of {type(module).__name__} are spread over several devices; their "
            "gradients cannot be captured. Load the model whole on one device, or leave "
            "them out: --layers '!*experts*'."
        )


def _forward(
    module: Any, observe: Observe, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
) -> Tensor:
    """``[N, d]``, ``[N, k]``, ``[N, k]`` -> ``[N, d]``; ``observe`` may replace each product."""
    tokens, choices = top_k_index.shape
    outputs, places = [], []
    weights = dict(expert_weights(module))
    up_name = "gate_up_proj" if module.has_gate else "up_proj"
    for expert in top_k_index.unique().tolist():
        token, choice = torch.where(top_k_index == expert)  # rising in token
        x = hidden_states[token]
        product = _linear(module, weights, up_name, expert, x)
        product = observe(up_name, expert, token, tokens, x, product)
        inner = module._apply_gate(product) if module.has_gate else module.act_fn(product)
        product = _linear(module, weights, "down_proj", expert, inner)
        product = observe("down_proj", expert, token, tokens, inner, product)
        if module.has_post_expert_norm:
            product = module.post_expert_norm(product)
        outputs.append(product * top_k_weights[token, choice, None])
        places.append(token * choices + choice)
    # Back into the order of the tokens without atomic additions, whose order is never the same.
    order = torch.cat(places).argsort()
    gathered = torch.cat(outputs)[order].view(tokens, choices, -1)
    return gathered.sum(dim=1).to(hidden_states.dtype)


def _linear(
    module: Any, weights: dict[str, nn.Parameter], name: str, expert: int, x: Tensor
) -> Tensor:
    weight = weights[name][expert]
    bias = getattr(module, f"{name}_bias")[expert] if module.has_bias else None
    return nn.functional.linear(x, weight.T if module.is_transposed else weight, bias)
