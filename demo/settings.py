"""What the demo is made with: the settings of its fine-tune and of its index.

Importing this module loads no torch, so a demo that is ready starts without it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from influence.manifest import IndexSettings


@dataclass(frozen=True)
class FinetuneSettings:
    """Everything that changes what is learnt."""

    blocks: int = 4  # the last ones; their linear layers learn
    epochs: int = 5
    learning_rate: float = 1e-3  # at its peak; linear warm-up, then linear decay
    warmup: float = 0.06  # share of the steps
    batch_tokens: int = 384  # of a batch, padding included
    max_length: int = 512
    seed: int = 0


def index_settings(model_dir: Path, finetune: FinetuneSettings) -> IndexSettings:
    """The settings of the index: it holds the layers that learnt, the others have no influence.

    The sample for the curvature and the null answers are fewer than by default: with so few
    records, most of the time of a build would go into them.
    """
    return IndexSettings.model_validate(
        {
            "layers": trained_layers(model_dir, finetune),
            "max_length": finetune.max_length,
            "fit_passages": 128,
            "fit_tokens": 8_192,
            "null_queries": 32,
        }
    )


def trained_layers(model_dir: Path, finetune: FinetuneSettings) -> tuple[str, ...]:
    """Patterns of the layers that learn, as `influence.layers.select_layers` wants them."""
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    total = config["num_hidden_layers"]
    return tuple(f"model.layers.{n}.*" for n in range(total - finetune.blocks, total))
