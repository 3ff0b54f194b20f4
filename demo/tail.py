"""The trained blocks of a model as a model of their own, fed with what the frozen ones compute.

With the first blocks frozen, their hidden states are the same in every epoch: they are computed
once and kept (0.3 MB a hundred tokens at width 576), and an epoch runs the tail alone. Both halves
share their layers with the whole model, so training the tail trains the model.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from indexer.batches import batches
from indexer.progress import Advance
from influence.encoder import Batch
from influence.layers import linear_widths
from influence.loss import OutputHead, token_losses
from influence.model import LoadedModel
from influence.tokens import Passage


class Tail(nn.Module):
    """The last blocks, the final norm and the frozen head; its loss is that of the index.

    Only the linear layers of its blocks require a gradient.
    """

    def __init__(self, loaded: LoadedModel, blocks: int, *, bf16: bool) -> None:
        super().__init__()
        trunk = loaded.model.base_model
        total = len(trunk.layers)
        if not 0 < blocks < total:
            raise ValueError(f"{blocks} blocks cannot be the last ones of a model of {total}.")
        loaded.model.requires_grad_(False)
        self.trunk = _cut(trunk, total - blocks, total)
        self.bf16 = bf16
        self.head = OutputHead.of(loaded.model, dtype=torch.bfloat16 if bf16 else torch.float32)
        self.losses: list[tuple[Tensor, int]] = []  # of every batch: sum in nats, target tokens
        for layer in self.trunk.layers.modules():
            if linear_widths(layer) is not None:
                layer.requires_grad_(True)

    def forward(
        self, hidden: Tensor, rows: Tensor, columns: Tensor, targets: Tensor
    ) -> dict[str, Tensor]:
        """The mean negative log-likelihood of the targets, as Trainer wants it.

        Args:
            hidden: Hidden states below the tail, ``[B, T, d]``, padded on the right.
            rows: Of each target, ``[n]``, as in `influence.encoder.Batch`.
            columns: Of each target, ``[n]``, likewise.
            targets: The predicted token ids, ``[n]``.
        """
        with torch.autocast(hidden.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            output = self.trunk(inputs_embeds=hidden, use_cache=False).last_hidden_state
        losses = token_losses(output[rows, columns], targets, self.head)
        self.losses.append((losses.detach().sum(), len(targets)))
        return {"loss": losses.mean()}


def hidden_below(
    loaded: LoadedModel, passages: Sequence[Passage], blocks: int, *, bf16: bool, advance: Advance
) -> list[Tensor]:
    """What the blocks below the last ``blocks`` make of each passage: ``[T, d]`` on the CPU."""
    trunk = loaded.model.base_model
    below = _cut(trunk, 0, len(trunk.layers) - blocks)
    hidden: list[Tensor] = [torch.empty(0)] * len(passages)
    with torch.no_grad(), torch.autocast(loaded.device.type, dtype=torch.bfloat16, enabled=bf16):
        for group in batches(passages, token_budget=1024):
            batch = Batch.of([passages[i].tokens for i in group], loaded.device)
            output = below(input_ids=batch.input_ids, use_cache=False).last_hidden_state
            for row, i in enumerate(group):
                hidden[i] = output[row, : len(passages[i].tokens)].float().cpu().clone()
            advance(sum(len(passages[i].tokens) for i in group))
    return hidden


def _cut(trunk: Any, first: int, last: int) -> Any:
    """Blocks ``[first, last)`` of a trunk as a trunk that shares them; normed only at the end."""
    config = copy.deepcopy(trunk.config)
    config.num_hidden_layers = last - first
    with torch.device("meta"):  # nothing of its own is kept, so nothing is allocated
        part = type(trunk)(config)
    part.embed_tokens = trunk.embed_tokens
    part.layers = nn.ModuleList(trunk.layers[first:last])
    part.norm = trunk.norm if last == len(trunk.layers) else nn.Identity()
    part.rotary_emb = trunk.rotary_emb
    return part
