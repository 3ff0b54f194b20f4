"""Whence: vectors on disk; the service's exact search; full-size EK-FAC beside Kronfluence."""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workload import BATCH, RANK, SEARCHED, TOGETHER, arguments, load, peak_mb, seconds, tell

from benchmarks.logging import load as as_loaded
from benchmarks.logging import make_encoder
from evaluation.catalogue import FULL_EKFAC, projected
from evaluation.methods import Dampings, Projected
from evaluation.subject import Subject
from influence.encoder import LanguageModelLoss
from influence.tokens import TokenSequence
from service.search.backend import Sought
from service.search.exact import ExactSearch

DIMS = 4096
DAMPING = Dampings(0.1, float("inf"))  # Kronfluence's heuristic is the same share of the mean


def sequences(ids):
    length = ids.shape[1]
    targets = [False] + [True] * (length - 1)
    return [TokenSequence(row, targets, [(0, 0)] * length) for row in ids.tolist()]


def logging(folder):
    model, documents = load(folder)
    encoder = make_encoder(as_loaded(model, "float32"), RANK, DIMS)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "vectors.npy"

        def log(ids):
            with path.open("ab") as stream:
                for some in ids.split(BATCH):
                    vectors = encoder.encode(sequences(some)).vectors
                    norms = vectors.norm(dim=1, keepdim=True)
                    np.save(stream, (vectors / norms).half().numpy())
                    np.save(stream, norms.numpy())

        log(documents[:BATCH])
        path.unlink()
        took = seconds(lambda: log(documents))
        size = path.stat().st_size / len(documents)
    tell(tokens_per_s=documents.numel() / took, bytes_a_passage=size, peak_mb=peak_mb())


def searching():
    generator = np.random.default_rng(0)
    units = generator.normal(size=(SEARCHED, DIMS)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    norms = np.ones(SEARCHED, dtype=np.float32)
    search = ExactSearch([units.astype(np.float16)], norms, threads=torch.get_num_threads())
    figures = {}
    for count in (1, TOGETHER):
        queries = generator.normal(size=(count, DIMS)).astype(np.float32)
        asked = [Sought(q / np.linalg.norm(q), 10) for q in queries]
        search.search(asked)
        took = min(seconds(lambda a=asked: search.search(a)) for _ in range(5))
        figures[f"pairs_per_s_{count}"] = count * SEARCHED / took
    search.close()
    tell(dims=DIMS, **figures)


def prepare_agreement(folder):
    """A small trained-looking model, documents with structure, and the layers to compare."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=200, hidden_size=48, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, initializer_range=0.1,
        max_position_embeddings=64,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    draw = np.random.default_rng(0)
    follows = draw.integers(0, 200, size=(200, 3))  # each token has three that follow it
    rows = np.empty((220, 24), dtype=np.int64)
    rows[:, 0] = draw.integers(0, 200, size=220)
    for t in range(1, 24):
        rows[:, t] = follows[rows[:, t - 1], draw.integers(0, 3, size=220)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        ids = torch.from_numpy(rows[draw.permutation(200)[:32]])
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder / "model")
    np.save(folder / "documents.npy", rows[:200])
    np.save(folder / "queries.npy", rows[200:])
    names = [n for n, m in model.named_modules() if n.endswith("_proj")]
    (folder / "layers.txt").write_text("\n".join(names))


def agreement(folder):
    model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    documents = sequences(np.load(folder / "documents.npy"))
    queries = sequences(np.load(folder / "queries.npy"))
    begun = time.perf_counter()
    subject = Subject(LanguageModelLoss(as_loaded(model, "float32")), documents, queries)
    settings = projected(rank=128, fit_passages=200, fit_tokens=100_000)
    fitted = Projected(FULL_EKFAC, settings).fit(subject)
    got = fitted.scores(fitted.capture(queries), DAMPING).influence
    took = time.perf_counter() - begun
    peer = np.load(folder / "scores.npy").astype(np.float64)
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(got, peer, strict=True)]
    tell(seconds=took, correlation=float(np.mean(each)), worst=float(np.min(each)))


def main():
    folder, what = arguments()
    if what == "logging":
        logging(folder)
    elif what == "search":
        searching()
    elif what == "prepare-agreement":
        prepare_agreement(folder / "agreement")
        tell()
    else:
        agreement(folder / "agreement")


main()
