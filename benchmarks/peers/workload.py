"""The same model and documents for every side, in a folder; and how a side is measured.

A side is a program that gets this folder and prints one line of JSON last. It imports nothing of
Whence (but Whence's own side), since it runs in another environment.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

BATCH = 8
RANK = 64
SEARCH_RANK = 16  # a store of 100,000 documents at rank 64 would not fit into memory
TOGETHER = 32
LENGTHS = ("equal", "varying")
CONTEXT = 512
WIDTH, LAYERS, VOCABULARY = 320, 8, 8192  # of a model of 13M parameters


def make_workload(
    folder: Path, *, documents: int, tokens: int, layers: int = LAYERS, seed: int = 0
) -> None:
    """A random Llama as safetensors, and documents of random tokens, of one length and of many.

    Random weights change no time. Lengths that vary are lognormal, as those of real texts are, with
    a median of ``tokens`` and a spread of one.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=5,
        num_key_value_heads=5,
        tie_word_embeddings=True,
        max_position_embeddings=CONTEXT,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    draw = np.random.default_rng(seed)
    varying = (tokens * np.exp(draw.normal(size=documents))).clip(8, min(CONTEXT, BATCH * tokens))
    lengths = {"equal": [tokens] * documents, "varying": varying.astype(int).tolist()}
    for name in LENGTHS:
        ids = [draw.integers(VOCABULARY, size=length).tolist() for length in lengths[name]]
        told = {"budget": BATCH * tokens, "documents": ids}
        (folder / f"{name}.json").write_text(json.dumps(told))


def load_model(folder: Path) -> Any:
    """In float32."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()


def load_documents(folder: Path, lengths: str) -> tuple[list[list[int]], int]:
    """Token ids of each document, and how many tokens a batch may hold, padding included."""
    told = json.loads((folder / f"{lengths}.json").read_text())
    return told["documents"], told["budget"]


def by_length(documents: Sequence[list[int]], budget: int) -> list[list[int]]:
    """Batches of documents sorted by length, for sides that do not make their own; indices."""
    groups: list[list[int]] = [[]]
    for i in sorted(range(len(documents)), key=lambda i: -len(documents[i])):
        longest = len(documents[groups[-1][0]]) if groups[-1] else 0
        if groups[-1] and longest * (len(groups[-1]) + 1) > budget:
            groups.append([])
        groups[-1].append(i)
    return groups


def padded(documents: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, labels (-100 at padding) and attention mask, ``[B, T]`` each."""
    longest = max(map(len, documents))
    ids = torch.zeros(len(documents), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, document in enumerate(documents):
        ids[row, : len(document)] = torch.tensor(document)
        mask[row, : len(document)] = 1
    return ids, ids.masked_fill(mask == 0, -100), mask


def load_task(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Documents and queries ``[n, 3, T]``: ids, labels (-100 where there is no loss) and mask."""
    return np.load(folder / "documents.npy"), np.load(folder / "queries.npy")


def folder_mb(folder: Path) -> float:
    """Of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def seconds(run: Callable[[], object]) -> float:
    """That a call takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def tell(**figures: Any) -> None:
    """The last line of a side."""
    print(json.dumps(figures))


def tell_logging(documents: Sequence[list[int]], took: float, megabytes: float) -> None:
    """Figures of logging; tokens are real ones, padding is not counted."""
    tell(
        tokens_per_s=sum(map(len, documents)) / took,
        bytes_a_passage=1e6 * megabytes / len(documents),
        peak_mb=peak_mb(),
    )


def arguments() -> tuple[Path, str, str]:
    """The folder of the workload, what is measured, and of what: lengths, or passages."""
    torch.set_num_threads(int(sys.argv[3]))
    what, _, of = sys.argv[2].partition(":")
    return Path(sys.argv[1]), what, of
