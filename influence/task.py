"""A task: how examples become a batch, what the loss of each is, and what is explained.

Everything else (capture, projection, curvature, whitening, search) is the same for every model and
every loss. A language model is one task among others:

    influence.task_causal          causal language models (`LanguageModelLoss`)
    influence.task_seq2seq         encoder-decoder models, such as T5
    influence.task_classification  transformers classifiers of texts and of images
    influence.task_module          any torch module with a loss of each example
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from influence.capture import Receiver, capture, frozen, shared_inputs
from influence.errors import InvalidInput, UnknownLayers
from influence.layers import LinearLayer
from influence.placement import OnOneDevice
from influence.projection import LayerProjection, ProjectionReceiver


class TaskBatch(Protocol):
    """Examples on a device, ready for the model."""

    @property
    def size(self) -> int:
        """B, the number of examples."""
        ...

    @property
    def target_counts(self) -> Tensor:
        """How many terms each example's loss sums, ``[B]``; the target tokens of a text."""
        ...

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """For each kind of sequence in the batch which positions are real, ``[B, T]`` bool."""
        ...


class Task(Protocol):
    """See the module."""

    @property
    def model(self) -> Any:
        """Any torch module; frozen while gradients are captured, given back as it came."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        ...

    @property
    def product_dtype(self) -> torch.dtype:
        """Dtype of the projections' matrix products."""
        ...

    def batch(self, examples: Sequence[Any]) -> Any:
        """Examples of one pass, as a `TaskBatch`."""
        ...

    def losses(self, batch: Any) -> Tensor:
        """The loss of each example, ``[B]``, *summed* over its targets; differentiable.

        An example's loss must not depend on the others in its batch.
        """
        ...

    def measurements(self, batch: Any) -> Tensor:
        """What is explained of each example as a query, ``[B]``: lower is better, as of a loss.

        With a loss here a positive score says that training on a passage made it smaller. What is
        better when higher, such as a margin, is given with its sign turned.
        """
        ...

    def size(self, example: Any) -> int:
        """What an example costs in a batch, in positions: tokens of a text, 1 of anything else."""
        ...


def run_backward(
    task: Task,
    batch: TaskBatch,
    layers: Sequence[LinearLayer],
    leaders: dict[str, str],
    receiver: Receiver,
    *,
    measured: bool = False,
) -> Tensor:
    """One forward and backward pass whose captured tensors go to a receiver.

    Args:
        task: Model and loss.
        batch: What `Task.batch` gave.
        layers: The attributed layers.
        leaders: Which of them share an input (`reached_layers`).
        receiver: Gets inputs and output gradients, on the task's device whatever theirs.
        measured: Differentiate the measurement instead of the loss.

    Returns:
        The loss (or measurement) of each example, ``[B]``, detached.
    """
    real = batch.masks[0] if len(batch.masks) == 1 else None
    gathering = OnOneDevice(receiver, task.device)
    with capture(task.model, layers, gathering, leaders=leaders, examples=batch.size, real=real):
        values = task.measurements(batch) if measured else task.losses(batch)
        if values.shape != (batch.size,):
            raise InvalidInput(
                f"The task gives losses of shape {tuple(values.shape)} for {batch.size} examples; "
                "it must give one number for each, summed over the example and not averaged over "
                "the batch."
            )
        if values.requires_grad:  # else the loss depends on none of the layers: all gradients are 0
            values.sum().backward()
    return values.detach()


def real_rows(values: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """The rows of ``[B, T, d]`` that are no padding, ``[n, d]``, for covariances.

    Positions are told by the masks of their length; where there is none, as for image patches or
    the tokens of an expert, every row counts that is not all zero.
    """
    fitting = [mask for mask in masks if mask.shape == values.shape[:2]]
    if fitting:
        return values[torch.stack(fitting).any(dim=0)]
    rows = values.flatten(0, 1)
    return rows[(rows != 0).any(dim=1)]


@dataclass(frozen=True)
class Reached:
    """Layers that the loss reaches, their leaders, and those selected in vain."""

    layers: list[LinearLayer]
    leaders: dict[str, str]
    unreached: list[LinearLayer]


class _Reached:
    """Notes where gradients arrive."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def on_input(self, layer: str, x: Tensor) -> None:
        return None

    def on_gradient(self, layer: str, seen: None, g: Tensor) -> None:
        self.names.add(layer)


def reached_layers(task: Task, layers: Sequence[LinearLayer], example: Any) -> Reached:
    """Which of the layers the forward pass calls and the loss depends on.

    A layer whose weight is used without calling it (as in `torch.nn.MultiheadAttention`), or whose
    output leads nowhere, gives no gradient, and must not be said to be covered. An expert counts as
    reached where another of its module is.

    Args:
        task: Model and loss.
        layers: Those selected.
        example: Any one.

    Raises:
        UnknownLayers: None of them is reached.
    """
    batch = task.batch([example])
    with frozen(task.model):
        called = shared_inputs(task.model, layers, lambda: task.losses(batch))
    present = [layer for layer in layers if layer.name in called]
    receiver = _Reached()
    run_backward(task, batch, present, called, receiver)
    families = {_family(name) for name in receiver.names}
    reached = [layer for layer in layers if _family(layer.name) in families]
    if not reached:
        raise UnknownLayers(
            f"The loss depends on none of the {len(layers)} selected layers, such as "
            f"{layers[0].name}: they are not called, or their outputs are not used. Select others."
        )
    names = [layer.name for layer in reached]
    first: dict[str, str] = {}  # a leader that is not reached hands over to the next
    leaders = {name: first.setdefault(called.get(name, name), name) for name in names}
    return Reached(reached, leaders, [layer for layer in layers if layer.name not in leaders])


def _family(name: str) -> str:
    """The name with the numbers of experts taken out: which of them run depends on the text."""
    return re.sub(r"(experts?(?:\.\w+)?[._])\d+", r"\1*", name)


def check_examples_apart(task: Task, reached: Reached, examples: Sequence[Any]) -> None:
    """See that examples in a batch have the gradients they have alone.

    Refuses models that mix examples (a batch norm in training mode, a loss averaged over the batch,
    an axis order other than examples first), which would otherwise give wrong scores silently.

    Args:
        task: Model and loss.
        reached: Its layers.
        examples: Two different ones.

    Raises:
        InvalidInput: They have not; the layer with the largest error is named.
    """
    generator = torch.Generator().manual_seed(0)
    projections = [
        LayerProjection(
            layer.name,
            *(
                torch.randn(min(width, 4), width, generator=generator).to(
                    task.device, task.product_dtype
                )
                for width in (layer.d_in, layer.d_out)
            ),
        )
        for layer in reached.layers
    ]
    alone_leaders = {layer.name: layer.name for layer in reached.layers}

    def gradients(chosen: Sequence[Any]) -> ProjectionReceiver:
        receiver = ProjectionReceiver(projections, len(chosen), task.device)
        run_backward(task, task.batch(chosen), reached.layers, alone_leaders, receiver)
        return receiver

    together = gradients(examples).coordinates
    alone = torch.cat([gradients([example]).coordinates for example in examples])
    # bfloat16 products depend a little on the shapes they run in; a mixed gradient is off by as
    # much as it is large.
    tolerance = 0.3 if task.product_dtype == torch.bfloat16 else 0.01
    error = (together - alone).norm() / alone.norm().clamp(min=1e-30)
    if not error < tolerance and torch.isfinite(alone).all():
        start, worst = 0, (0.0, "")
        for p in projections:
            block = slice(start, start + p.coordinates)
            worst = max(worst, (float((together - alone)[:, block].norm()), p.name))
            start += p.coordinates
        raise InvalidInput(
            f"The gradients of two examples in one batch differ from those of each alone by "
            f"{float(error):.0%}, most in layer {worst[1]}. Examples must be the first axis of "
            "every layer's input and must not influence each other; leave such layers out with "
            "--layers '!NAME', or give a loss of each example by itself."
        )
