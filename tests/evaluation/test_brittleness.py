"""On a linear model, where what is left after a removal has a closed form."""

import numpy as np
import pytest

from evaluation.brittleness import brittleness, without_first

N, D, Q = 40, 5, 6
RIDGE = 0.7


@pytest.fixture
def ridge():
    """Examples, labels, queries, and ``(XᵀX + λI)⁻¹``."""
    draw = np.random.default_rng(0)
    x, queries = draw.normal(size=(N, D)), draw.normal(size=(Q, D))
    y = x @ draw.normal(size=D) + draw.normal(size=N)
    return x, y, queries, np.linalg.inv(x.T @ x + RIDGE * np.eye(D))


def _retrain(x, y, queries):
    """Solves every subset anew; measured: the prediction."""

    def run(subsets):
        measured = []
        for kept in subsets:
            some = x[kept]
            theta = np.linalg.solve(some.T @ some + RIDGE * np.eye(D), some.T @ y[kept])
            measured.append(queries @ theta)
        return np.stack(measured)

    return run


def test_the_curve_of_an_oracle_is_the_closed_form(ridge):
    """Leaving out S changes a prediction by ``x_qᵀ A⁻¹ X_Sᵀ (I - H_SS)⁻¹ e_S``, exactly."""
    x, y, queries, inverse = ridge
    theta, hat = inverse @ x.T @ y, x @ inverse @ x.T
    residuals = y - x @ theta
    # The prediction falls by this when one example goes: the oracle that removes one by one.
    oracle = queries @ inverse @ x.T * (residuals / (1 - np.diag(hat)))
    full = queries @ theta
    curve = brittleness({"oracle": oracle}, (1, 3, 8), _retrain(x, y, queries), full)
    assert [drop.k for drop in curve] == [1, 3, 8]
    for drop in curve:
        fallen = []
        for q in range(Q):
            gone = np.argsort(-oracle[q])[: drop.k]
            inner = np.eye(drop.k) - hat[np.ix_(gone, gone)]
            fallen.append(
                queries[q] @ inverse @ x[gone].T @ np.linalg.solve(inner, residuals[gone])
            )
        assert drop.drop.mean == pytest.approx(np.mean(fallen), rel=1e-9)
        flips = (full > 0) & (full - np.array(fallen) <= 0)
        assert drop.flips == pytest.approx(flips.sum() / (full > 0).sum())
    assert curve[0].drop.mean == pytest.approx(oracle.max(axis=1).mean())


def test_an_oracle_beats_chance_and_its_opposite_does_worse(ridge):
    x, y, queries, inverse = ridge
    oracle = queries @ inverse @ x.T * (y - x @ inverse @ x.T @ y)
    rankings = {
        "oracle": oracle,
        "random": np.random.default_rng(1).normal(size=(Q, N)),
        "flipped": -oracle,
    }
    full = queries @ inverse @ x.T @ y
    curve = brittleness(rankings, (5,), _retrain(x, y, queries), full)
    drops = {drop.ranking: drop.drop for drop in curve}
    assert drops["oracle"].low > drops["random"].mean > drops["flipped"].high


def test_each_query_loses_its_own_first_examples():
    scores = np.array([[3.0, 1.0, 2.0], [0.0, 0.0, -1.0]])
    assert without_first(scores, 1).tolist() == [[False, True, True], [False, True, True]]
    assert without_first(scores, 2).tolist() == [[False, True, False], [False, False, True]]
    with pytest.raises(ValueError, match="3 of 3 examples cannot be removed"):
        without_first(scores, 3)
