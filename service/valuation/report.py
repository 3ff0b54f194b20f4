"""What owners are worth in a period: the figures of `whence valuations` and `GET /valuations`."""

from collections.abc import Mapping
from typing import Any

from influence.errors import InvalidInput
from service.ledger.ledger import Ledger
from service.valuation.aliases import Aliases
from service.valuation.intervals import bootstrap_totals, interval, shares
from service.valuation.periods import parse_period
from service.valuation.totals import PeriodTotals, period_totals
from service.valuation.weighing import Entries

TOP_DOCUMENTS = 100


def totals_of(ledger: Ledger, period: str, *, entries: Entries | None = None) -> PeriodTotals:
    """Totals of a period under all aliases that the ledger has.

    Args:
        ledger: With the entries of the period.
        period: Its name.
        entries: A reader in front of the ledger that counts or weighs otherwise.

    Raises:
        InvalidInput: No period, or one without entries.
        LedgerUnavailable: The database cannot be read.
    """
    wanted = parse_period(period)
    first, last = ledger.range_of(wanted.start_us, wanted.end_us)
    aliases = Aliases(ledger.events("alias"), up_to=ledger.head().sequence)
    totals = period_totals(entries or ledger, first, last, aliases)
    if totals.entries == 0:
        raise InvalidInput(
            f"The ledger has no attributions in {period}. `whence ledger show` tells from when to "
            "when it has some."
        )
    return totals


def by_document(passages: Mapping[str, float]) -> dict[str, float]:
    """Recorded influence of passages, added up for their documents."""
    documents: dict[str, float] = {}
    for passage, influence in passages.items():
        document = passage.rpartition("#")[0]
        documents[document] = documents.get(document, 0.0) + influence
    return documents


def valuations(ledger: Ledger, period: str) -> dict[str, Any]:
    """Signed totals, positive shares and their intervals, the owners of most worth first.

    Raises:
        InvalidInput: No period, or one without entries.
        LedgerUnavailable: The database cannot be read.
    """
    totals = totals_of(ledger, period)
    linear, positive = totals.total("linear"), totals.total("positive-share")
    low, high = interval(bootstrap_totals(totals.groups["linear"]))
    resampled = shares(bootstrap_totals(totals.groups["positive-share"]))
    share, (share_low, share_high) = shares(positive), interval(resampled)
    flat = shares(totals.total("flat"))
    order = sorted(range(len(totals.owners)), key=lambda o: (-linear[o], totals.owners[o]))
    documents = by_document(totals.passages)
    top = sorted(documents.items(), key=lambda item: (-item[1], item[0]))[:TOP_DOCUMENTS]
    return {
        "period": period,
        "entries": totals.entries,
        "weight": totals.weight,
        "ledger": {"first": totals.first, "last": totals.last},
        "owners": [
            {
                "owner": totals.owners[o] or None,
                "total": float(linear[o]),
                "low": float(low[o]),
                "high": float(high[o]),
                "positive_share": float(share[o]),
                "positive_share_low": float(share_low[o]),
                "positive_share_high": float(share_high[o]),
                "flat_share": float(flat[o]),
            }
            for o in order
        ],
        "documents": [{"document_id": name, "recorded": value} for name, value in top],
    }
