"""Labels for the Fisher: tokens drawn from the model's own distribution instead of the corpus'.

The *empirical* Fisher takes the gradients of the corpus' own tokens; the *true* Fisher, which is
the Gauss-Newton matrix of the loss, those of tokens that the model itself would say at the same
places. Everything else of the two is the same, `sampled_targets` aside.
"""

import zlib
from array import array

import torch
from torch import Tensor

from influence.encoder import Batch, LanguageModelLoss
from influence.loss import ROWS_PER_CHUNK, OutputHead, WholeLogits


class SampledLabelLoss(LanguageModelLoss):
    """The loss of a language model on tokens drawn from its own distribution.

    The tokens of a passage depend on the seed and on the passage alone, not on the batch in which
    it travels, so that a batch computed again in halves has the same labels.
    """

    def __init__(self, loss: LanguageModelLoss, *, seed: int) -> None:
        # A loss that was already held against the model's own; nothing to check a second time.
        self.loaded = loss.loaded
        self.padding = loss.padding
        self.trunk = loss.trunk
        self.head = loss.head
        self.seed = seed

    def labels(self, batch: Batch, hidden: Tensor, head: OutputHead | WholeLogits) -> Tensor:
        """A token drawn at the place of every target, ``[n]``."""
        return sampled_targets(hidden, head, _uniforms(batch, self.seed).to(hidden.device))


def sampled_targets(hidden: Tensor, head: OutputHead | WholeLogits, uniforms: Tensor) -> Tensor:
    """One token of each row's distribution, by inverting its cumulative probabilities.

    Args:
        hidden: Last hidden states, ``[n, d]``.
        head: The output head.
        uniforms: In [0, 1), ``[n]``.

    Returns:
        Token ids, ``[n]``.
    """
    targets = torch.empty(len(hidden), dtype=torch.long, device=hidden.device)
    with torch.no_grad():
        for start in range(0, len(hidden), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            cumulative = head.logits(hidden[rows]).softmax(dim=1).cumsum(dim=1)
            wanted = uniforms[rows, None] * cumulative[:, -1:]  # rounding leaves the sum near 1
            found = torch.searchsorted(cumulative, wanted, right=True).squeeze(1)
            targets[rows] = found.clamp(max=cumulative.shape[1] - 1)
    return targets


def _uniforms(batch: Batch, seed: int) -> Tensor:
    """A number in [0, 1) for each target, ``[n]``, drawn on the CPU from seed and token ids."""
    drawn = torch.empty(len(batch.rows))
    rows = batch.rows.cpu()
    for row, (ids, length) in enumerate(
        zip(batch.input_ids.tolist(), batch.lengths.tolist(), strict=True)
    ):
        # A CPU generator looks at 32 bits of its seed only.
        generator = torch.Generator().manual_seed(
            zlib.crc32(array("q", [seed, *ids[:length]]).tobytes())
        )
        mine = rows == row
        drawn[mine] = torch.rand(int(mine.sum()), generator=generator)
    return drawn
