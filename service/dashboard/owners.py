"""What owners are worth: the leaderboard, its trend, and how concentrated it is."""

from service.dashboard.concentration import gini, lorenz
from service.dashboard.figures import bars, curve, lines
from service.dashboard.sources import Sources
from service.dashboard.view import Column, Fact, Figure, Table, View

SHOWN = 20  # bars
FOLLOWED = 8  # lines
UNOWNED = "(documents without an owner)"

COLUMNS = (
    Column("owner", "Owner", "owner"),
    Column("total", "Total, nats", "number"),
    Column("low", "from", "number"),
    Column("high", "to", "number"),
    Column("positive_share", "Positive share", "share"),
    Column("positive_share_low", "from", "share"),
    Column("positive_share_high", "to", "share"),
    Column("flat_share", "Flat share", "share"),
)


def owners_view(sources: Sources) -> View:
    """The figures of `GET /valuations`, to the last digit.

    Raises:
        NotFound: There is no ledger, or nothing is in it.
        InvalidInput: The period has no entries.
    """
    report = sources.report
    owners = report["owners"]
    board = Table(
        "owners",
        "Leaderboard",
        "Signed totals over all answers of the period, with no top-k cut; intervals at 95 % over "
        "other answers of the same kind.",
        COLUMNS,
        tuple(tuple(line[column.name] for column in COLUMNS) for line in owners),
    )
    named = [line for line in owners if line["owner"] is not None]
    worth = [line["total"] for line in named]
    holders, held = lorenz(worth)
    trend = trend_of(sources)
    followed = [line["owner"] for line in named[:FOLLOWED]]
    top = owners[:SHOWN]
    return View(
        "Owners",
        "What each owner's documents were worth for the answers of the period.",
        facts=(
            Fact("Answers", report["entries"], "count", "Recorded in the period."),
            Fact("Weight", report["weight"], "number", "Of these answers, together."),
            Fact("Owners", len(named), "count", "With a total of their own."),
            Fact(
                "Gini",
                gini(worth),
                "number",
                "0: all owners have the same; near 1: one has everything. Negative totals count "
                "as nothing.",
            ),
        ),
        figures=(
            Figure(
                "leaderboard",
                "Totals",
                "Bars of the owners' totals, the highest first, with their intervals; the table "
                "has the numbers.",
                bars(
                    [line["owner"] or UNOWNED for line in top],
                    [line["total"] for line in top],
                    low=[line["low"] for line in top],
                    high=[line["high"] for line in top],
                    unit="nats",
                ),
            ),
            Figure(
                "trend",
                "Trend",
                "Totals of the highest owners in each part of the period; the table has all.",
                lines(
                    [slice_.name for slice_ in sources.slices],
                    {
                        owner: [row[2] for row in trend.rows if row[1] == owner]
                        for owner in followed
                    },
                    unit="nats",
                ),
            ),
            Figure(
                "lorenz",
                "Concentration",
                "Lorenz curve: what part of all positive worth the poorest part of the owners "
                "has. The dotted line is equality.",
                curve(
                    holders.tolist(),
                    held.tolist(),
                    x_title="part of the owners, poorest first",
                    y_title="part of the worth",
                ),
            ),
        ),
        tables=(board, trend),
        missing=sources.unfiltered,
    )


def trend_of(sources: Sources) -> Table:
    """Total of every owner in every part of the period; 0 where nothing was recorded."""
    parts = [(part, sources.totals_within(part)) for part in sources.slices]
    owners = sorted({name for _, totals in parts for name in totals.owners})
    rows = []
    for part, totals in parts:
        total = dict(zip(totals.owners, totals.total("linear").tolist(), strict=True))
        rows += [(part.name, name or None, total.get(name, 0.0), totals.entries) for name in owners]
    return Table(
        "trend",
        "Trend",
        "The same totals in parts of the period, each named by its first day.",
        (
            Column("from", "From", "time"),
            Column("owner", "Owner", "owner"),
            Column("total", "Total, nats", "number"),
            Column("answers", "Answers", "count"),
        ),
        tuple(rows),
    )
