"""A pool divided to the cent: exact fractions, caps filled like vessels, largest remainders.

Money is whole cents; shares are exact fractions of the floats that the ledger adds up to, so
nothing is lost or made on the way and the same worths always give the same cents.
"""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from influence.errors import InvalidInput

MAX_CENTS = 10**17


def parse_money(text: str, *, what: str, least: int = 0) -> int:
    """Cents of an amount.

    Raises:
        InvalidInput: No amount, a fraction of a cent, or below ``least`` cents.
    """
    try:
        cents = Decimal(text) * 100
    except InvalidOperation as error:
        raise InvalidInput(
            f"{what} is {text!r}, which is no amount. Give one as 1000.50."
        ) from error
    if not cents.is_finite() or cents != cents.to_integral_value() or cents > MAX_CENTS:
        raise InvalidInput(f"{what} is {text!r}. Give an amount in whole cents, as 1000.50.")
    if cents < least:
        raise InvalidInput(f"{what} is {text!r}; it must be at least {show_money(least)}.")
    return int(cents)


def show_money(cents: int) -> str:
    """``1000.50``."""
    return f"{Decimal(cents) / 100:.2f}"


def divide(
    cents: int, worth: Sequence[float], *, floors: Sequence[int], caps: Sequence[int | None]
) -> tuple[list[int], int]:
    """Divide a pool in proportion to worth.

    Args:
        cents: The pool.
        worth: Of each; a negative one counts as 0.
        floors: What each gets at least, taken from the pool first.
        caps: What each gets at most, its floor included; None: any amount.

    Returns:
        Cents of each, and what nobody may have: together they are the pool.

    Raises:
        InvalidInput: The floors are more than the pool, or nobody has positive worth.
    """
    if sum(floors) > cents:
        raise InvalidInput(
            f"The floors are {show_money(sum(floors))} together, and the pool is "
            f"{show_money(cents)}. Lower the floor, or raise the pool."
        )
    parts = [Fraction(max(value, 0.0)) for value in worth]
    if not any(parts):
        raise InvalidInput(
            "Nobody has positive worth in this period, so there is nothing to divide by. Keep the "
            "pool, or divide it with the policy flat."
        )
    room = [
        None if cap is None else max(cap - low, 0) for cap, low in zip(caps, floors, strict=True)
    ]
    exact = _fill(Fraction(cents - sum(floors)), parts, room)
    got = [int(amount) for amount in exact]  # amounts are not negative: this rounds down
    left = cents - sum(floors) - sum(got)
    # Cents that rounding left go to the largest remainders, the first of equals; none beyond a cap.
    order = sorted(range(len(exact)), key=lambda i: (got[i] - exact[i], i))
    spare = int(sum(exact)) - sum(got) if sum(exact) < left + sum(got) else left
    for place in order[:spare]:
        got[place] += 1
    return [low + more for low, more in zip(floors, got, strict=True)], left - spare


def _fill(pool: Fraction, parts: list[Fraction], room: list[int | None]) -> list[Fraction]:
    """Exact amounts: in proportion, and what does not fit one goes to the others."""
    amounts = [Fraction(0)] * len(parts)
    open_ = [i for i, part in enumerate(parts) if part > 0]
    while open_ and pool > 0:
        whole = sum(parts[i] for i in open_)
        full = [i for i in open_ if (cap := room[i]) is not None and parts[i] * pool > cap * whole]
        if not full:
            for i in open_:
                amounts[i] = pool * parts[i] / whole
            break
        for i in full:
            amounts[i] = Fraction(room[i] or 0)
            pool -= amounts[i]
        open_ = [i for i in open_ if i not in set(full)]
    return amounts
