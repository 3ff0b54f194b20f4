"""`whence ledger`: verify, show and erase what was recorded; rename owners.

whence ledger verify
whence ledger show --last 20
whence ledger erase --before 2026-01-01
whence ledger alias "Old name" "New name"
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.ledger.ledger import Ledger

app = typer.Typer(help="Verify, show and erase what was recorded.", no_args_is_help=True)

Url = Annotated[
    str,
    typer.Option("--ledger", envvar="WHENCE_LEDGER_URL", help="SQLite file, or postgresql://…"),
]


@contextmanager
def opened(url: str) -> "Iterator[Ledger]":
    """A ledger that is there."""
    from service.ledger.ledger import Ledger

    ledger = Ledger(url)
    try:
        yield ledger
    finally:
        ledger.close()


@app.command()
def verify(
    url: Url,
    expect: Annotated[
        str | None, typer.Option(help="SEQUENCE:HASH that a statement names for its last entry.")
    ] = None,
) -> None:
    """Compute every hash of the chain again."""
    from service.ledger.verify import verify_ledger

    expected = None
    if expect is not None:
        sequence, _, digest = expect.partition(":")
        if not sequence.isdigit() or len(digest) != 64:
            raise typer.BadParameter("give SEQUENCE:HASH", param_hint="expect")
        expected = (int(sequence), digest)
    with opened(url) as ledger:
        found = verify_ledger(ledger, expected_head=expected)
    typer.echo(
        f"{found.entries} entries, {found.attributions} of them attributions, and every hash "
        f"holds; {found.erased} texts erased. Head {found.entries}:{found.head}"
    )


@app.command()
def show(
    url: Url, last: Annotated[int, typer.Option(min=1, help="How many entries.")] = 20
) -> None:
    """The newest entries, one line of JSON each."""
    from service.ledger.chain import canonical

    with opened(url) as ledger:
        end = ledger.head().sequence
        for entry in ledger.read(max(1, end - last + 1), end):
            when = datetime.fromtimestamp(entry.time_us / 1e6, UTC).isoformat()
            said = {"sequence": entry.sequence, "time": when, "kind": entry.kind, "key": entry.key}
            typer.echo(canonical({**said, "weight": entry.weight, **entry.content}))


@app.command()
def erase(
    url: Url,
    before: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="All texts before this day (UTC).")
    ] = None,
    request: Annotated[
        list[str] | None, typer.Option(help="Texts of this request id; repeat for several.")
    ] = None,
) -> None:
    """Erase texts and what could prove them; the chain stays whole."""
    from service.ledger.retention import erase_before, erase_requests

    if (before is None) == (not request):
        raise typer.BadParameter("give --before or --request", param_hint="erase")
    with opened(url) as ledger:
        if before is not None:
            erased = erase_before(ledger, int(before.replace(tzinfo=UTC).timestamp()) * 10**6)
        else:
            erased = erase_requests(ledger, request or [])
    typer.echo(f"{erased} erased.")


@app.command()
def alias(
    url: Url,
    owner: Annotated[str, typer.Argument(help="The name in the ledger.")],
    becomes: Annotated[str, typer.Argument(help="Who it belongs to.")],
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="From this day on (UTC); by default always."),
    ] = None,
) -> None:
    """Let what is recorded under one owner's name belong to another."""
    from service.valuation.aliases import add_alias

    moment = 0 if since is None else int(since.replace(tzinfo=UTC).timestamp()) * 10**6
    with opened(url) as ledger:
        add_alias(ledger, owner, becomes, since_us=moment)
    typer.echo(f"{owner} is {becomes}.")
