"""Exact unrolled differentiation: what a training example's weight did to the trained model.

Give example ``i`` the weight ``1 + ε_i`` in every batch that holds it. ``df(θ_T)/dε_i`` follows by
the chain rule back through all steps of training, with the data order and the noise of the very
run: what influence functions and SOURCE approximate. The states of the run are kept, and the
adjoint of the last state is taken back step by step (`torch.func.vjp`), for all queries at once.

Costs ``Q`` products with the curvature of every batch and one parameter vector a step: for small
models. Averaged over runs with other data orders it is what SOURCE estimates (arXiv 2405.12186,
equation 6).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

# (parameters [k], examples [B] of the batch, weights [B]) -> mean over B of weighted losses
State = tuple[Tensor, ...]  # of an optimiser, parameters [k] first
BatchLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One step of training: the examples ``[B]`` of its batch and its learning rate."""

    examples: Tensor
    learning_rate: float


@dataclass(frozen=True)
class Flat:
    """Named parameters as one vector, and back."""

    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor]) -> "Flat":
        """In their order."""
        return cls({name: p.shape for name, p in parameters.items()})

    def vector(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """``[k]``."""
        return torch.cat([parameters[name].flatten() for name in self.shapes])

    def parts(self, vector: Tensor) -> dict[str, Tensor]:
        """By name, of a vector ``[k]``."""
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        return {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


class Optimizer(Protocol):
    """How training steps; every part of the state is a tensor and is differentiated through."""

    def initial(self, parameters: Tensor) -> State:
        """The state before the first step; its first part is the parameters ``[k]``."""
        ...

    def advance(self, state: State, weights: Tensor, step: Step) -> State:
        """The state after one step, with a weight ``[B]`` for each example."""
        ...


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

    def initial(self, parameters: Tensor) -> State:
        """Parameters and velocity."""
        return parameters, torch.zeros_like(parameters)

    def advance(self, state: State, weights: Tensor, step: Step) -> State:
        """See `Optimizer`."""
        parameters, velocity = state
        gradient = grad(self.loss)(parameters, step.examples, weights)
        gradient = gradient + self.weight_decay * parameters
        velocity = self.momentum * velocity + gradient
        return parameters - step.learning_rate * velocity, velocity


@dataclass(frozen=True)
class AdamDescent:
    """`torch.optim.AdamW`.

    Attributes:
        loss: As of `Descent`.
        betas: β₁, β₂.
        weight_decay: Taken off the weights, times the learning rate.
        epsilon: ε.
    """

    loss: BatchLoss
    betas: tuple[float, float]
    weight_decay: float = 0.0
    epsilon: float = 1e-8

    def initial(self, parameters: Tensor) -> State:
        """Parameters, both moments, ``β₁ᵗ`` and ``β₂ᵗ``."""
        ones = torch.ones(2, dtype=parameters.dtype)
        return parameters, torch.zeros_like(parameters), torch.zeros_like(parameters), ones

    def advance(self, state: State, weights: Tensor, step: Step) -> State:
        """See `Optimizer`."""
        parameters, first, second, powers = state
        gradient = grad(self.loss)(parameters, step.examples, weights)
        powers = powers * torch.tensor(self.betas, dtype=powers.dtype)
        first = self.betas[0] * first + (1 - self.betas[0]) * gradient
        second = self.betas[1] * second + (1 - self.betas[1]) * gradient.square()
        # A weight that no gradient has reached stays, and the root has no slope at 0.
        reached = second > 0
        root = (torch.where(reached, second, 1.0) / (1 - powers[1])).sqrt()
        move = torch.where(reached, first / (1 - powers[0]) / (root + self.epsilon), 0.0)
        kept = parameters * (1 - step.learning_rate * self.weight_decay)
        return kept - step.learning_rate * move, first, second, powers


def run(optimizer: Optimizer, parameters: Tensor, steps: Sequence[Step]) -> list[State]:
    """Every state of training, the first included."""
    states = [optimizer.initial(parameters)]
    for step in steps:
        ones = torch.ones(len(step.examples), dtype=parameters.dtype)
        states.append(optimizer.advance(states[-1], ones, step))
    return states


def unrolled_scores(
    optimizer: Optimizer,
    states: Sequence[State],
    steps: Sequence[Step],
    queries: Tensor,
    *,
    examples: int,
) -> Tensor:
    """``-df_q(θ_T)/dε_i``, times the number of examples.

    Positive where more weight on an example lowers the query's measurement; the factor ``N`` makes
    it comparable with influence, which is per unit of the *sum* of the losses.

    Args:
        optimizer: Of the run.
        states: What `run` gave.
        steps: The steps it ran.
        queries: Gradients of the measurements at the last state, ``[Q, k]``.
        examples: ``N``.

    Returns:
        ``[Q, N]``.
    """
    scores = queries.new_zeros(len(queries), examples)
    adjoint = (queries, *(part.new_zeros(len(queries), *part.shape) for part in states[-1][1:]))
    for step, state in zip(reversed(steps), reversed(states[:-1]), strict=True):
        ones = torch.ones(len(step.examples), dtype=queries.dtype)
        back: Any = vjp(lambda s, w, step=step: optimizer.advance(s, w, step), state, ones)[1]
        adjoint, of_weights = vmap(back)(adjoint)
        scores.index_add_(1, step.examples, of_weights)
    return -examples * scores
