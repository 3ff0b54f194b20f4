"""What owners were worth in a period as players of a game (`service.valuation.games`).

Under the linear utility the value of an owner is its total, and exact. Under the clipped one, where
an answer is worth nothing rather than less, values are estimated and come with the bounds of their
errors. The documents without an owner are a player as well, whose name is None.
"""

from typing import Any

import numpy as np

from influence.errors import InvalidInput
from service.ledger.chain import unpack_totals
from service.ledger.ledger import Ledger
from service.valuation.aliases import Aliases
from service.valuation.games import (
    MISS,
    clipped_utility,
    leave_one_out,
    monte_carlo_banzhaf,
    monte_carlo_shapley,
)
from service.valuation.periods import parse_period

MOST_TOTALS = 50_000_000  # answers times owners, 400 MB


def owner_game(
    ledger: Ledger, period: str, *, orders: int, tolerance: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """Values of all owners under both utilities, those of most worth first.

    Args:
        ledger: With the answers.
        period: Its name.
        orders: Pairs of random orders for Shapley's values, and random coalitions for Banzhaf's.
        tolerance: Nats at which an order is broken off (`monte_carlo_shapley`).
        seed: Of both.

    Raises:
        InvalidInput: No period, one without entries, or one with too many to be held at once.
        LedgerUnavailable: The database cannot be read.
    """
    owners, totals, weights = _totals(ledger, period)
    utility, ranges = clipped_utility(totals, weights), weights @ np.abs(totals)
    shapley = monte_carlo_shapley(utility, ranges, orders=orders, tolerance=tolerance, seed=seed)
    banzhaf = monte_carlo_banzhaf(utility, ranges, coalitions=orders, seed=seed)
    alone = leave_one_out(utility, len(owners))
    linear = weights @ totals
    order = sorted(range(len(owners)), key=lambda o: (-shapley.values[o], owners[o]))
    return {
        "period": period,
        "answers": len(weights),
        "utility": "clipped",
        "orders": orders,
        "tolerance": tolerance,
        "seed": seed,
        "error_confidence": 1 - MISS,
        "owners": [
            {
                "owner": owners[o] or None,
                "linear": float(linear[o]),
                "shapley": float(shapley.values[o]),
                "shapley_error": float(shapley.errors[o]),
                "banzhaf": float(banzhaf.values[o]),
                "banzhaf_error": float(banzhaf.errors[o]),
                "leave_one_out": float(alone[o]),
            }
            for o in order
        ],
    }


def _totals(ledger: Ledger, period: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Owners, totals ``[Q, O]`` and weights ``[Q]`` of a period."""
    wanted = parse_period(period)
    first, last = ledger.range_of(wanted.start_us, wanted.end_us)
    aliases = Aliases(ledger.events("alias"), up_to=ledger.head().sequence)
    sets = {entry.sequence: entry.content["names"] for entry in ledger.events("owners")}
    place: dict[str, int] = {}
    rows: list[tuple[list[int], np.ndarray]] = []
    weights: list[float] = []
    held = 0
    for entry in ledger.read(first, last):
        if entry.kind != "attribution":
            continue
        names = sets[entry.owner_set or 0]
        held += len(names)
        if held > MOST_TOTALS:
            raise InvalidInput(
                f"{period} has more answers than can be held at once ({MOST_TOTALS:,} totals of "
                "owners). Choose a shorter period; `whence valuations` has no such limit."
            )
        owned = [aliases.owner(name, entry.time_us) if name else name for name in names]
        columns = [place.setdefault(name, len(place)) for name in owned]
        rows.append((columns, unpack_totals(entry.totals or b"", len(names))))
        weights.append(entry.weight or 0.0)
    if not rows:
        raise InvalidInput(
            f"The ledger has no attributions in {period}. `whence ledger show` tells from when to "
            "when it has some."
        )
    totals = np.zeros((len(rows), len(place)))
    for row, (columns, values) in enumerate(rows):
        np.add.at(totals[row], columns, values)
    return list(place), totals, np.array(weights)
