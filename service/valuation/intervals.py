"""Intervals: what other queries of the same kind would have said.

The bootstrap (Efron 1979) draws the groups of queries with replacement, with one seed, so the same
ledger has the same intervals. Several models, one index each, are drawn as well where there are
several (`over_models`).
"""

import numpy as np

RESAMPLES = 1_000
LEVEL = 0.95


def bootstrap_totals(groups: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Totals of resampled groups: ``[G, O]`` -> ``[R, O]``; empty groups are resampled too."""
    drawn = np.random.default_rng(seed).multinomial(
        len(groups), np.full(len(groups), 1 / len(groups)), size=RESAMPLES
    )
    return drawn.astype(np.float64) @ groups


def over_models(values: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Totals of resampled models and queries: ``[M, Q, O]`` -> ``[R, O]``, the mean over models."""
    draw = np.random.default_rng(seed)
    models, queries, _ = values.shape
    out = np.empty((RESAMPLES, values.shape[2]))
    for number in range(RESAMPLES):
        of_models = np.bincount(draw.integers(models, size=models), minlength=models) / models
        of_queries = np.bincount(draw.integers(queries, size=queries), minlength=queries)
        out[number] = np.einsum("m,q,mqo->o", of_models, of_queries, values)
    return out


def interval(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends at 95 %: ``[R, O]`` -> two of ``[O]``."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def shares(totals: np.ndarray) -> np.ndarray:
    """Each owner's part of the positive totals, along the last axis; 0 where none is positive."""
    positive = np.maximum(totals, 0)
    whole = positive.sum(axis=-1, keepdims=True)
    return positive / np.where(whole > 0, whole, 1)
