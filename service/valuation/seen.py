"""Valuations and statements as one caller may see them: its own lines, and nothing of the others'.

``owners`` is None for a caller that may see all. A name is read through the aliases of the ledger,
so a key that was made for the old name sees what belongs to the new one.
"""

from collections.abc import Set
from typing import Any

from service.ledger.ledger import Ledger
from service.valuation.aliases import Aliases, known_owners
from service.valuation.report import valuations

_EVER = 2**62  # a time after all others


def owners_seen(ledger: Ledger, owners: Set[str] | None) -> dict[str, Any]:
    """Owners that the ledger knows, sorted, under the names they have now."""
    aliases = Aliases(ledger.events("alias"), up_to=ledger.head().sequence)
    names = {aliases.owner(name, _EVER) for name in known_owners(ledger) if name}
    return {"owners": sorted(names if owners is None else names & _now(ledger, owners))}


def valuations_seen(ledger: Ledger, period: str, owners: Set[str] | None) -> dict[str, Any]:
    """`service.valuation.report.valuations` of a period.

    Raises:
        InvalidInput: No period, or one without entries.
    """
    report = valuations(ledger, period)
    if owners is None:
        return report
    own = _now(ledger, owners)
    lines = [line for line in report["owners"] if line["owner"] in own]
    return {**report, "owners": lines, "documents": []}


def payouts_seen(ledger: Ledger, owners: Set[str] | None) -> dict[str, Any]:
    """Recorded statements, the newest first."""
    statements = [event.content for event in reversed(ledger.events("payout"))]
    if owners is None:
        return {"payouts": statements}
    own = _now(ledger, owners)
    return {
        "payouts": [
            {
                **{name: statement[name] for name in ("period", "policy_text", "ledger")},
                "lines": [line for line in statement["lines"] if line["owner"] in own],
            }
            for statement in statements
        ]
    }


def _now(ledger: Ledger, owners: Set[str]) -> set[str]:
    aliases = Aliases(ledger.events("alias"), up_to=ledger.head().sequence)
    return {aliases.owner(name, _EVER) for name in owners} | set(owners)
