"""Log the gradient of every example while a model trains, from the training's own backward pass.

    with Logger(model, "log") as log:
        for ids, batch in loader:
            model(**batch).loss.backward()
            log(ids, batch)
            optimizer.step()

Hooks read layer inputs and the gradients of layer outputs as they pass; nothing is computed twice
and no bit of the training changes. What autograd gives is the gradient of the *batch's* loss, in
which an example's own stands divided by whatever the loss is the mean over; multiplied by it again,
a row is the gradient of the example's summed loss, as everywhere in Whence.

Accumulation, mixed precision and gradient checkpointing change nothing: one call of `log` for each
backward pass. Under DDP every process logs its own examples, each into a folder of its own.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from indexer.training_log import LogWriter
from influence.basis import Basis, LayerBasis
from influence.capture import observed
from influence.curvature import random_subspace
from influence.errors import InvalidInput
from influence.layers import select_layers
from influence.placement import is_sharded
from influence.projection import LayerProjection, ProjectionReceiver

log = logging.getLogger(__name__)

NO_TARGET = -100  # label of a position without a target, in torch and transformers


class Logger:
    """Logs a training; see the module.

    Args:
        model: The model in training; of one wrapped by DDP the wrapped module.
        out: Folder of the log.
        rank: Of each side of each layer.
        dims: Numbers of a row; layers are sketched down to it.
        layers: Patterns of the logged layers.
        seed: Of projections and sketch.
        accumulation: Backward passes of one step, whose losses are each divided by it.

    Raises:
        InvalidInput: The model is sharded.
        UnknownLayers: A pattern matches nothing.
        BuildConflict: The folder holds a log.
    """

    def __init__(
        self,
        model: nn.Module,
        out: str | Path,
        *,
        rank: int = 16,
        dims: int = 4096,
        layers: Sequence[str] = ("*",),
        seed: int = 0,
        accumulation: int = 1,
    ) -> None:
        if is_sharded(model):
            raise InvalidInput(
                f"This {type(model).__name__} is sharded by FSDP, and its layers cannot be logged "
                "in training. Use DDP, or log the checkpoints afterwards with whence index."
            )
        self.model = model
        self.basis = random_basis(model, rank=rank, dims=dims, layers=layers, seed=seed)
        self.writer = LogWriter(Path(out), self.basis)
        self._accumulation = accumulation
        self._calls = 0
        self._receiver = _PassingReceiver(self.basis)
        self._hooks = ExitStack()

    @property
    def step(self) -> int:
        """Of training, that the next call of `log` belongs to; the first is 1."""
        return self._calls // self._accumulation + 1

    def __enter__(self) -> "Logger":
        chosen = [layer.layer for layer in self.basis.layers]
        begin = self.model.register_forward_pre_hook(lambda *_: self._receiver.begin())
        self._hooks.callback(begin.remove)
        self._hooks.enter_context(
            observed(self.model, chosen, self._receiver, leaders=self.basis.leaders)
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._hooks.close()
        self.writer.flush()

    def __call__(
        self,
        ids: Sequence[Any],
        batch: Mapping[str, Any] | None = None,
        *,
        denominator: float | None = None,
    ) -> None:
        """Log the examples of the last forward and backward pass.

        Args:
            ids: Of the documents, one for each example of the batch.
            batch: What the model was given; its ``labels`` say how many targets the mean was over.
            denominator: What the sum of the examples' losses was divided by before `backward`; 1
                for a sum. By default the number of targets in ``labels``, or without labels the
                number of examples, times ``accumulation``.

        Raises:
            InvalidInput: No gradient arrived, or there are not as many ids as examples.
        """
        coordinates = self._receiver.take()
        if coordinates is None:
            raise InvalidInput(
                "No gradient arrived since the last call of the logger. Call it once after each "
                "loss.backward() of the model that it was given."
            )
        names = [str(i.item() if isinstance(i, Tensor) else i) for i in ids]
        if len(names) != len(coordinates):
            raise InvalidInput(
                f"There are {len(names)} ids for {len(coordinates)} examples. Give one for each."
            )
        if denominator is None:
            denominator = _terms(batch, len(names)) * self._accumulation
        vectors = self.basis.sketch.forward(coordinates * denominator).cpu()
        finite = torch.isfinite(vectors).all(dim=1)
        if not finite.all():
            lost = [name for name, sound in zip(names, finite.tolist(), strict=True) if not sound]
            log.warning("step %d: not logged, gradient not finite: %s", self.step, ", ".join(lost))
            names = [name for name, sound in zip(names, finite.tolist(), strict=True) if sound]
        self.writer.add(names, self.step, vectors[finite].numpy())
        self._calls += 1


def random_basis(
    model: nn.Module, *, rank: int, dims: int, layers: Sequence[str], seed: int
) -> Basis:
    """Random projections: of a model that is yet to be trained nothing is known.

    Layers of one input width share a projection, so that those which read the same input (query,
    key and value) project it once.
    """
    leaders: dict[int, str] = {}
    inputs: dict[int, Tensor] = {}
    chosen = []
    for number, layer in enumerate(select_layers(model, layers)):
        leader = leaders.setdefault(layer.d_in, layer.name)
        if layer.d_in not in inputs:
            drawn = random_subspace(rank, layer.d_in, seed=seed + 2 * number)
            inputs[layer.d_in] = drawn.basis.float()
        output = random_subspace(rank, layer.d_out, seed=seed + 2 * number + 1).basis.float()
        ones = torch.ones(len(output), len(inputs[layer.d_in]), dtype=torch.float64)
        chosen.append(LayerBasis(layer.name, leader, inputs[layer.d_in], output, roots=ones,
                                 eigenvalues=ones))  # fmt: skip
    basis = Basis(tuple(chosen), damping=1.0, dims=dims, seed=seed)
    device = next(model.parameters()).device
    return basis.to(device)


def _terms(batch: Mapping[str, Any] | None, examples: int) -> int:
    labels = None if batch is None else batch.get("labels")
    if not isinstance(labels, Tensor) or labels.dim() < 2:
        return examples
    return int((labels[:, 1:] != NO_TARGET).sum())


class _PassingReceiver:
    """A `ProjectionReceiver` for each forward pass, of the size of its batch."""

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._projections: dict[torch.dtype, list[LayerProjection]] = {}
        self._current: ProjectionReceiver | None = None
        self._arrived = False

    def begin(self) -> None:
        """A forward pass begins."""
        self._current, self._arrived = None, False

    def take(self) -> Tensor | None:
        """``[B, K]`` of the last pass; None where no gradient arrived."""
        taken = self._current.coordinates if self._current and self._arrived else None
        self.begin()
        return taken

    @torch.no_grad()
    def on_input(self, layer: str, x: Tensor) -> Tensor:
        """Projects it, as everywhere."""
        if self._current is None:
            if x.dtype not in self._projections:
                self._projections[x.dtype] = self._basis.projections(x.dtype)
            self._current = ProjectionReceiver(self._projections[x.dtype], len(x), x.device)
        return self._current.on_input(layer, x)

    @torch.no_grad()
    def on_gradient(self, layer: str, seen: Tensor, g: Tensor) -> None:
        """Adds it up, as everywhere."""
        assert self._current is not None  # an input came first
        self._current.on_gradient(layer, seen, g)
        self._arrived = True
