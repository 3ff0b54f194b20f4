"""The same model and documents for every side, in a folder; and how a side is measured.

A side is a program that gets this folder and prints one line of JSON last. It imports nothing of
Whence (but Whence's own side), since it runs in another environment.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH = 8
RANK = 64
SEARCH_RANK = 16  # a store of 10,000 documents at rank 64 would not fit into memory
SEARCHED = 10_000
TOGETHER = 32


def make_workload(folder: Path, *, documents: int, tokens: int, seed: int = 0) -> None:
    """A random Llama of 13M parameters as safetensors, and documents of random tokens.

    Random weights change no time; documents of one length need no padding, which is kind to peers
    that do not sort by length.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=320,
        intermediate_size=960,
        num_hidden_layers=8,
        num_attention_heads=5,
        num_key_value_heads=5,
        tie_word_embeddings=True,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    draw = np.random.default_rng(seed)
    np.save(folder / "documents.npy", draw.integers(0, 8192, size=(documents, tokens)))


def load(folder: Path) -> tuple[Any, torch.Tensor]:
    """Model in float32 and documents ``[N, T]``."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    return model, torch.from_numpy(np.load(folder / "documents.npy"))


def seconds(run: Callable[[], object]) -> float:
    """That a call takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def tell(**figures: float) -> None:
    """The last line of a side."""
    print(json.dumps(figures))


def arguments() -> tuple[Path, str]:
    """The folder of the workload, and which measurement is asked for."""
    torch.set_num_threads(int(sys.argv[3]))
    return Path(sys.argv[1]), sys.argv[2]
