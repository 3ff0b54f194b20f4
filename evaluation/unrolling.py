"""Exact unrolled differentiation: what a training example's weight did to the trained model.

Give example ``i`` the weight ``1 + ε_i`` in every batch that holds it. ``df(θ_T)/dε_i`` follows by
the chain rule back through all steps of training, with the data order and the noise of the very
run: what influence functions and SOURCE approximate. The states of the run are kept, and the
adjoint of the last state is taken back step by step (`torch.func.vjp`), for all queries at once.

Costs ``Q`` products with the curvature of every batch and one parameter vector a step: for small
models. Averaged over runs with other data orders it is what SOURCE estimates (arXiv 2405.12186,
equation 6).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

# (parameters [k], examples [B] of the batch, weights [B]) -> mean over B of weighted losses
BatchLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One step of training: the examples ``[B]`` of its batch and its learning rate."""

    examples: Tensor
    learning_rate: float


@dataclass(frozen=True)
class Descent:
    """SGD with heavy-ball momentum and weight decay, as `torch.optim.SGD` does it.

    Attributes:
        loss: Of a batch, with a weight for each example; the mean over the batch.
        momentum: β.
        weight_decay: Added to the gradient, times the weights.
    """

    loss: BatchLoss
    momentum: float = 0.0
    weight_decay: float = 0.0

    def advance(
        self, parameters: Tensor, velocity: Tensor, weights: Tensor, step: Step
    ) -> tuple[Tensor, Tensor]:
        """Parameters and velocity after one step."""
        gradient = grad(self.loss)(parameters, step.examples, weights)
        gradient = gradient + self.weight_decay * parameters
        velocity = self.momentum * velocity + gradient
        return parameters - step.learning_rate * velocity, velocity

    def run(self, parameters: Tensor, steps: Sequence[Step]) -> list[tuple[Tensor, Tensor]]:
        """Every state of training, the first included: parameters and velocity, ``[k]`` each."""
        states = [(parameters, torch.zeros_like(parameters))]
        for step in steps:
            ones = torch.ones(len(step.examples), dtype=parameters.dtype)
            states.append(self.advance(*states[-1], ones, step))
        return states


def unrolled_scores(
    descent: Descent,
    states: Sequence[tuple[Tensor, Tensor]],
    steps: Sequence[Step],
    queries: Tensor,
    *,
    examples: int,
) -> Tensor:
    """``-df_q(θ_T)/dε_i``, times the number of examples.

    Positive where more weight on an example lowers the query's measurement; the factor ``N`` makes
    it comparable with influence, which is per unit of the *sum* of the losses.

    Args:
        descent: The optimiser.
        states: What `Descent.run` gave.
        steps: The steps it ran.
        queries: Gradients of the measurements at the last state, ``[Q, k]``.
        examples: ``N``.

    Returns:
        ``[Q, N]``.
    """
    scores = queries.new_zeros(len(queries), examples)
    adjoint, adjoint_velocity = queries, torch.zeros_like(queries)
    for step, (parameters, velocity) in zip(reversed(steps), reversed(states[:-1]), strict=True):
        ones = torch.ones(len(step.examples), dtype=parameters.dtype)
        back: Any = vjp(
            lambda p, v, w, step=step: descent.advance(p, v, w, step), parameters, velocity, ones
        )[1]
        adjoint, adjoint_velocity, of_weights = vmap(back)((adjoint, adjoint_velocity))
        scores.index_add_(1, step.examples, of_weights)
    return -examples * scores
