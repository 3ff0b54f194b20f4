"""`whence game`: owners as players, where what they are worth does not add up."""

from typing import Annotated

import typer

from cli.ledger import Url, opened
from cli.payout import Period


def game(
    url: Url,
    period: Period,
    orders: Annotated[
        int, typer.Option(min=1, help="Random orders, each also backwards; more are more exact.")
    ] = 200,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Break an order off where so few nats are left to add.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same estimates.")] = 0,
) -> None:
    """Shapley and Banzhaf values of owners in a period, with bounds of their errors, as JSON."""
    from service.ledger.chain import canonical
    from service.valuation.period_games import owner_game

    with opened(url) as ledger:
        found = owner_game(ledger, period, orders=orders, tolerance=tolerance, seed=seed)
    typer.echo(canonical(found))
