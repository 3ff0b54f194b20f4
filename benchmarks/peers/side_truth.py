"""Whence's own side of agreement and LDS: models to attribute, its scores, and the figures.

prepare-agreement   a small trained Llama with documents and queries for full-size EK-FAC
prepare-lds         the language task of `whence evaluate methods`: its first model
agreement, lds      scores of Whence beside those that peers have left in the folder
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from workload import arguments, load_model, load_task, tell

from benchmarks.logging import load as as_loaded
from evaluation.cache import default_cache_dir
from evaluation.catalogue import FULL_EKFAC, projected, whence
from evaluation.lds import bootstrap, lds
from evaluation.methods import Dampings, FullGradient, Projected
from evaluation.subject import Subject
from evaluation.trial import run_trial
from indexer.progress import Reporter
from influence.encoder import LanguageModelLoss
from influence.tokens import TokenSequence

DAMPING = Dampings(0.1, float("inf"))  # Kronfluence's heuristic is the same share of the mean
JOINT = Dampings(0.1, 1.0)  # the defaults of an index


def as_task(sequences):
    """Sequences as other sides read them: ids, labels and mask, ``[n, 3, T]``."""
    rows = np.zeros((len(sequences), 3, max(map(len, sequences))), dtype=np.int64)
    rows[:, 1] = -100
    for row, sequence in zip(rows, sequences, strict=True):
        length = len(sequence)
        row[0, :length] = sequence.input_ids
        row[1, :length] = np.where(sequence.targets, sequence.input_ids, -100)
        row[2, :length] = 1
    return rows


def as_sequences(task):
    """And back."""
    lengths = task[:, 2].sum(axis=1)
    return [
        TokenSequence(ids[:n].tolist(), (labels[:n] != -100).tolist(), [(0, 0)] * int(n))
        for (ids, labels, _), n in zip(task, lengths, strict=True)
    ]


def leave(folder, model, documents, queries):
    model.save_pretrained(folder / "model")
    np.save(folder / "documents.npy", as_task(documents))
    np.save(folder / "queries.npy", as_task(queries))
    names = [name for name, _ in model.named_modules() if name.endswith("_proj")]
    (folder / "layers.txt").write_text("\n".join(names))


def prepare_agreement(folder):
    """Documents have a structure that can be learnt."""
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
    targets, offsets = [False] + [True] * 23, [(0, 0)] * 24
    sequences = [TokenSequence(row.tolist(), targets, offsets) for row in rows]
    leave(folder, model, sequences[:200], sequences[200:])


def agreement(folder):
    documents, queries = map(as_sequences, load_task(folder))
    begun = time.perf_counter()
    subject = Subject(
        LanguageModelLoss(as_loaded(load_model(folder), "float32")), documents, queries
    )
    settings = projected(rank=128, fit_passages=200, fit_tokens=100_000)
    fitted = Projected(FULL_EKFAC, settings).fit(subject)
    got = fitted.scores(fitted.capture(queries), DAMPING).influence
    took = time.perf_counter() - begun
    peer = np.load(folder / "scores-kronfluence.npy").astype(np.float64)
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(got, peer, strict=True)]
    tell(seconds=took, correlation=float(np.mean(each)), worst=float(np.min(each)))


def prepare_lds(folder, size):
    trial = run_trial(
        "language", small=size == "small", cache=default_cache_dir(), reporter=Reporter()
    )
    subject = trial.subjects[0]
    leave(folder, subject.task.model, subject.examples, subject.queries)
    np.savez(folder / "retrained.npz", subsets=trial.subsets, outputs=trial.outputs)


def lds_of_all(folder):
    """Nothing is picked: every side at its own defaults, dampings of Whence those of an index."""
    documents, queries = map(as_sequences, load_task(folder))
    subject = Subject(
        LanguageModelLoss(as_loaded(load_model(folder), "float32")), documents, queries
    )
    scores = {}
    for name, method, dampings in (
        ("Whence: rank 64, D 4,096", whence(64, 4096), DAMPING),
        ("Whence: rank 64, D 4,096, joint", whence(64, 4096, joint=True), JOINT),
        ("Whence: EK-FAC, full size", Projected(FULL_EKFAC, projected(rank=128)), DAMPING),
        ("gradient dot product", FullGradient("dot"), DAMPING),
    ):
        fitted = method.fit(subject)
        scores[name] = fitted.scores(fitted.capture(queries), dampings).influence
    for path in sorted(folder.glob("scores-*.npy")):
        scores[path.stem.removeprefix("scores-")] = np.load(path).astype(np.float64)
    truth = np.load(folder / "retrained.npz")
    found = {}
    for name, values in scores.items():
        interval = bootstrap(lds(values, truth["subsets"], truth["outputs"]))
        found[name] = [interval.mean, interval.low, interval.high]
    tell(**found)


def main():
    folder, what, of = arguments()
    place = folder / what.removeprefix("prepare-")
    place.mkdir(exist_ok=True)
    if what == "prepare-agreement":
        prepare_agreement(place)
        tell()
    elif what == "prepare-lds":
        prepare_lds(place, of)
        tell()
    elif what == "agreement":
        agreement(place)
    else:
        lds_of_all(place)


main()
