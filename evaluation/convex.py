"""Owners of a convex problem: their totals against refitting without them.

A softmax regression has one optimum, so what an owner is worth can be computed as well as
predicted. With a weight ``w_i`` on each of ``n`` examples,

    θ(w) = argmin_θ (1/n) Σ_i w_i L_i(θ) + (r/2) ‖θ‖²,        dθ/dw_i = -H⁻¹ ∇L_i / n,

so taking a part ``ε`` of the weight of owner ``o`` away lowers the summed log-likelihood of the
queries by ``(ε/n) Σ_q t_qo + O(ε²)``, where ``t_qo`` is the owner's total for query ``q``. The
totals are made as answers make them: vectors whitened by half, summed for each owner, one product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.lds import spearman
from influence.totals import OwnerTotals
from service.owners import owner_shares

_NEWTON_STEPS = 50
_GRADIENT_LEFT = 1e-12  # of the mean loss, where the fit ends
_SIDE = 4  # pixels; 8 of the images are pooled to it


@dataclass(frozen=True)
class RegressionSettings:
    """The problem.

    Attributes:
        examples: Training images, n.
        queries: Other images, asked with their true digit.
        owners: O, of equally many examples up to the draw.
        worst: Part of the last owner's labels that is wrong; the first has none, and between them
            it rises evenly. So what owners contribute is known, and some of it does harm.
        ridge: r.
        seed: Of the draw.
    """

    examples: int = 1000
    queries: int = 400
    owners: int = 10
    worst: float = 0.5
    ridge: float = 1e-2
    seed: int = 0


@dataclass(frozen=True)
class Agreement:
    """Predicted and refitted effects of taking away a part of each owner's weight.

    Attributes:
        part: ε.
        predicted: ``(ε/n) Σ_q t_qo``, nats, ``[O]``.
        refitted: What the summed log-likelihood fell by, nats, ``[O]``.
    """

    part: float
    predicted: np.ndarray
    refitted: np.ndarray

    @property
    def rank_correlation(self) -> float:
        """Spearman's, over owners."""
        return float(spearman(self.predicted[:, None], self.refitted[:, None])[0])

    @property
    def correlation(self) -> float:
        """Pearson's, over owners."""
        return float(np.corrcoef(self.predicted, self.refitted)[0, 1])

    @property
    def slope(self) -> float:
        """Nats refitted for each nat predicted."""
        return float(self.predicted @ self.refitted / (self.predicted @ self.predicted))

    @property
    def error(self) -> float:
        """Root mean square of what is off, as a part of that of the refitted effects."""
        off = np.linalg.norm(self.refitted - self.predicted)
        return float(off / np.linalg.norm(self.refitted))


class RegressionStudy:
    """Data, fit and totals; float64 throughout, as far as the stored sums are."""

    def __init__(self, settings: RegressionSettings) -> None:
        self.settings = settings
        draw = np.random.default_rng(settings.seed)
        images, labels = _digits(draw)
        n, queries = settings.examples, slice(settings.examples, None)
        self.owner_of = draw.integers(settings.owners, size=n)
        self.wrong = draw.random(n) < settings.worst * self.owner_of / (settings.owners - 1)
        self._x = images[:n]
        self._y = np.where(self.wrong, (labels[:n] + draw.integers(1, 10, n)) % 10, labels[:n])
        self._x_query = images[queries][: settings.queries]
        self._y_query = labels[queries][: settings.queries]
        self._theta = self._fit(np.ones(n), np.zeros((10, images.shape[1])))

    def agreements(self, parts: Sequence[float]) -> list[Agreement]:
        """Refit with a part of each owner's weight taken away, all of it where that is 1."""
        totals = self.totals().sum(axis=0) / len(self._y)
        before = self._log_likelihood(self._theta)
        found = []
        for part in parts:
            refitted = np.empty(self.settings.owners)
            for owner in range(self.settings.owners):
                weights = np.where(self.owner_of == owner, 1 - part, 1.0)
                refitted[owner] = before - self._log_likelihood(self._fit(weights, self._theta))
            found.append(Agreement(part, part * totals, refitted))
        return found

    def totals(self) -> np.ndarray:
        """``t_qo``, ``[Q, O]``."""
        owners = range(self.settings.owners)
        factor = np.linalg.cholesky(self._hessian(self._theta, np.ones(len(self._y))))
        train = self._whitened(factor, self._x, self._y)
        queries = self._whitened(factor, self._x_query, self._y_query)
        names = tuple(f"owner {o:03d}" for o in owners)
        sums = np.stack([train[self.owner_of == o].sum(axis=0) for o in owners])
        counts = np.bincount(self.owner_of, minlength=len(owners))
        energies = [float(np.square(train[self.owner_of == o]).sum()) for o in owners]
        stored = OwnerTotals(names, sums.astype(np.float32), counts, np.array(energies))
        totals = np.empty((len(queries), len(owners)))
        for row, query in enumerate(queries):
            for share in owner_shares(query, stored):
                totals[row, names.index(share.owner or "")] = share.influence
        return totals

    def _whitened(self, factor: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Half-whitened gradients of the losses, ``[N, k]``; of two, the product is the score."""
        off = _softmax(x @ self._theta.T) - np.eye(10)[y]  # [N, C]
        gradients = np.einsum("nc,nd->ncd", off, x).reshape(len(x), -1)
        return np.linalg.solve(factor, gradients.T).T

    def _fit(self, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Newton's method from ``start [C, d]``."""
        theta = start
        for _ in range(_NEWTON_STEPS):
            off = _softmax(self._x @ theta.T) - np.eye(10)[self._y]
            gradient = (weights[:, None] * off).T @ self._x / len(self._y)
            gradient += self.settings.ridge * theta
            if np.abs(gradient).max() < _GRADIENT_LEFT:
                break
            step = np.linalg.solve(self._hessian(theta, weights), gradient.ravel())
            theta = theta - step.reshape(theta.shape)
        return theta

    def _hessian(self, theta: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Of the objective, ``[C d, C d]``."""
        p = _softmax(self._x @ theta.T)
        curvature = np.einsum("nc,ce->nce", p, np.eye(10)) - np.einsum("nc,ne->nce", p, p)
        weighted = (weights[:, None, None] * curvature / len(p)).reshape(len(p), -1)
        outer = np.einsum("nd,nf->ndf", self._x, self._x).reshape(len(p), -1)
        blocks = (weighted.T @ outer).reshape(10, 10, theta.shape[1], theta.shape[1])
        dense = blocks.transpose(0, 2, 1, 3).reshape(theta.size, theta.size)
        return dense + self.settings.ridge * np.eye(theta.size)

    def _log_likelihood(self, theta: np.ndarray) -> float:
        """Of the true digits of all queries, nats."""
        p = _softmax(self._x_query @ theta.T)
        return float(np.log(p[np.arange(len(p)), self._y_query]).sum())


def _digits(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pooled images with a constant, ``[M, d]``, and labels, in random order."""
    from sklearn.datasets import load_digits

    images, labels = (np.asarray(values) for values in load_digits(return_X_y=True))
    order = draw.permutation(len(images))
    whole = images[order].reshape(-1, _SIDE, 8 // _SIDE, _SIDE, 8 // _SIDE)
    pooled = whole.mean(axis=(2, 4)).reshape(len(images), -1) / 8 - 1
    return np.concatenate([pooled, np.ones((len(pooled), 1))], axis=1), labels[order]


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
