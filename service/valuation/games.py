"""Worth as a cooperative game: owners are the players, a utility says what a coalition is worth.

With the *linear* utility ``v(S) = Σ_q w_q Σ_{o∈S} t_qo`` every owner adds the same to every
coalition, so its Shapley value (Shapley 1953), its Banzhaf value and what is lost when it leaves
are all its total. With the *clipped* utility ``v(S) = Σ_q w_q max(Σ_{o∈S} t_qo, 0)`` they differ;
Shapley's is estimated from random orders of the owners, each order taken forwards and backwards
(antithetic; Mitchell et al. 2022), and an order is broken off where what is left to add is below a
tolerance (truncated; Ghorbani & Zou 2019). Banzhaf's is estimated from random coalitions and their
complements.

What owner ``o`` adds to a coalition under the clipped utility lies, for each query, between 0 and
``t_qo``. So its range is ``R_o = Σ_q w_q |t_qo|``, and by Hoeffding's inequality an average over
``m`` independent pairs is off by no more than ``R_o √(ln(2/δ) / 2m)`` with probability ``1 - δ``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Utility = Callable[[np.ndarray], np.ndarray]  # coalitions [C, O] bool -> [C]

MISS = 0.05  # δ of the error bounds


@dataclass(frozen=True)
class Estimate:
    """Values of the players.

    Attributes:
        values: ``[O]``.
        errors: No estimate is off by more with probability .95, by Hoeffding; 0 where exact.
        evaluations: Coalitions whose utility was computed.
    """

    values: np.ndarray
    errors: np.ndarray
    evaluations: int


def linear_utility(totals: np.ndarray, weights: np.ndarray) -> Utility:
    """``v(S) = Σ_q w_q Σ_{o∈S} t_qo`` of totals ``[Q, O]`` and weights ``[Q]``."""
    worth = weights @ totals
    return lambda coalitions: coalitions @ worth


def clipped_utility(totals: np.ndarray, weights: np.ndarray) -> Utility:
    """``v(S) = Σ_q w_q max(Σ_{o∈S} t_qo, 0)`` of totals ``[Q, O]`` and weights ``[Q]``."""
    return lambda coalitions: np.maximum(coalitions @ totals.T, 0) @ weights


def leave_one_out(utility: Utility, players: int) -> np.ndarray:
    """What is lost when each player leaves: ``v(N) - v(N \\ {o})``, ``[O]``."""
    everyone = np.ones((1, players), dtype=bool)
    without = ~np.eye(players, dtype=bool)
    return utility(everyone)[0] - utility(without)


def monte_carlo_shapley(
    utility: Utility,
    ranges: np.ndarray,
    *,
    orders: int,
    tolerance: float = 0.0,
    seed: int = 0,
) -> Estimate:
    """Shapley values from ``orders`` random orders, each also backwards.

    Args:
        utility: Of coalitions.
        ranges: Width of the interval that each player's additions lie in, ``[O]``.
        orders: Independent pairs of orders, ``m``.
        tolerance: An order is broken off once the coalition is worth what all are, to within it;
            those behind are taken to add nothing, so a value is off by at most this much more.
        seed: Same seed, same orders.
    """
    players = len(ranges)
    everyone = utility(np.ones((1, players), dtype=bool))[0]
    nobody = utility(np.zeros((1, players), dtype=bool))[0]
    draw = np.random.default_rng(seed)
    values = np.zeros(players)
    evaluations = 2
    for _ in range(orders):
        order = draw.permutation(players)
        for walk in (order, order[::-1]):
            coalition = np.zeros((1, players), dtype=bool)
            before = nobody
            for player in walk:
                if tolerance > 0 and abs(everyone - before) < tolerance:
                    break
                coalition[0, player] = True
                after = utility(coalition)[0]
                evaluations += 1
                values[player] += after - before
                before = after
    errors = ranges * np.sqrt(np.log(2 / MISS) / (2 * orders)) + tolerance
    return Estimate(values / (2 * orders), errors, evaluations)


def monte_carlo_banzhaf(
    utility: Utility, ranges: np.ndarray, *, coalitions: int, seed: int = 0
) -> Estimate:
    """Banzhaf values (Wang & Jia 2023 for data) from random coalitions and their complements."""
    players = len(ranges)
    half = np.random.default_rng(seed).random((coalitions, players)) < 0.5
    drawn = np.concatenate([half, ~half])
    values = np.empty(players)
    for player in range(players):
        inside, outside = drawn.copy(), drawn.copy()
        inside[:, player], outside[:, player] = True, False
        values[player] = (utility(inside) - utility(outside)).mean()
    errors = ranges * np.sqrt(np.log(2 / MISS) / (2 * coalitions))
    return Estimate(values, errors, 4 * coalitions * players)
