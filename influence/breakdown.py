"""Where in the model an influence sits: its parts by layer, and by kind of module.

A layer's part is ``⟨Q̂_ℓ, G_ℓ⟩``: the passage's projected gradient in that layer against the other
side's vector, taken back to that layer's coordinates (`influence.explain`). The parts sum exactly
to the stored score, always. What one of them is by itself depends on the index:

- nothing sketched and no joint whitening: the influence of training that layer alone;
- joint whitening: the curvature couples the layers, and a part holds this layer's half of that;
- sketched: a part is right on average over the sketch's seed, with noise from the other layers
  that share its bins. Its standard deviation is about ``‖q̃‖ ‖z̃_ℓ‖ / √D``, that of a whole score
  for the layer's share ``‖z̃_ℓ‖`` of the passage. Sums over many layers, such as all attention,
  stand out of it first; to compare single layers, build the index with more dims.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ModuleKind = Literal["attention", "mlp", "other"]
KINDS: tuple[ModuleKind, ...] = ("attention", "mlp", "other")

# As transformers names modules. The outermost part of a name that says what it is decides, so the
# gate of an attention is attention.
_ATTENTION = re.compile(r"\w*(attn|attention)\w*|[qkvo]_proj|query|key|value", re.IGNORECASE)
_MLP = re.compile(
    r"\w*mlp\w*|ffn?\w*|feed_?forward\w*|(c_)?fc(\d+|_\w+)|w[io123](_\d)?|intermediate"
    r"|(gate|up|gate_up|down)_proj|dense\w*relu\w*|dense_\w+|\w*experts?|\w*moe\w*|lin[12]",
    re.IGNORECASE,
)
_BERT_MLP = re.compile(r"layers?\.\d+\.output\.dense$")  # the second half of `intermediate`


@dataclass(frozen=True)
class LayerPart:
    """One layer's part of a score."""

    layer: str
    kind: ModuleKind
    influence: float


def module_kind(layer: str) -> ModuleKind:
    """Attention, MLP or neither, by the layer's name in the model."""
    for word in layer.split("."):
        if _ATTENTION.fullmatch(word):
            return "attention"
        if _MLP.fullmatch(word):
            return "mlp"
    return "mlp" if _BERT_MLP.search(layer) else "other"


def by_layer(layers: Sequence[str], parts: Sequence[float]) -> tuple[LayerPart, ...]:
    """Name the parts of a score: `Explanation.layers` against the layers of its basis."""
    return tuple(
        LayerPart(layer, module_kind(layer), part)
        for layer, part in zip(layers, parts, strict=True)
    )


def by_kind(parts: Sequence[LayerPart]) -> dict[ModuleKind, float]:
    """Sum the layers' parts by kind of module; all three kinds are there."""
    totals = dict.fromkeys(KINDS, 0.0)
    for part in parts:
        totals[part.kind] += part.influence
    return totals
