"""`whence report`: the views of the dashboard as one file."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    index: Annotated[str, typer.Argument(help="The index: a folder, or a URL such as s3://….")],
    out: Annotated[Path, typer.Option(help="The file, such as report.html.")],
    url: Annotated[
        str | None,
        typer.Option("--ledger", envvar="WHENCE_LEDGER_URL", help="SQLite file, or postgresql://…"),
    ] = None,
    period: Annotated[
        str | None,
        typer.Option(help="2026-10, 2026, or 2026-10-01..2026-10-15; by default everything."),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only documents of this owner.")] = None,
    source: Annotated[str | None, typer.Option(help="Only documents from this source.")] = None,
    blocked: Annotated[
        Path | None,
        typer.Option(
            envvar="WHENCE_BLOCKED_FILE", help="Ids of documents whose texts are withheld."
        ),
    ] = None,
    patterns: Annotated[
        Path | None,
        typer.Option(
            envvar="WHENCE_PII_PATTERNS_FILE", help="Regular expressions that are covered in texts."
        ),
    ] = None,
    tables: Annotated[
        Path | None, typer.Option(help="Folder for every table as CSV and Parquet, whole.")
    ] = None,
) -> None:
    """Write the dashboard's views as one file that needs no server; needs no model."""
    from contextlib import nullcontext

    from cli.ledger import opened
    from influence.atomic import storage_errors, write_bytes
    from influence.store import IndexReader
    from influence.transfer import local_index
    from service.dashboard.dashboard import draw
    from service.dashboard.figures import plotly_library
    from service.dashboard.page import to_html
    from service.dashboard.sources import Filters, Sources
    from service.hidden import Hidden

    library = plotly_library()
    reader = IndexReader.open(local_index(index))
    with nullcontext() if url is None else opened(url) as ledger:
        filters = Filters(period, owner, source)
        sources = Sources(reader, ledger, Hidden(blocked, patterns), filters)
        names = ("quality",) if ledger is None else ("owners", "documents", "answers", "quality")
        views = {name: draw(name, sources) for name in names}
        when = "no ledger" if ledger is None else sources.period.name
    says = f"From version {reader.version} of the index, {when}."
    title = f"What the data of {reader.index_dir.resolve().name} are worth"
    write_bytes(out, to_html(title, says, list(views.values()), library=library).encode())
    if tables is not None:
        with storage_errors(tables):
            tables.mkdir(parents=True, exist_ok=True)
        for name, view in views.items():
            for table in view.tables:
                write_bytes(tables / f"{name}-{table.name}.csv", table.to_csv())
                write_bytes(tables / f"{name}-{table.name}.parquet", table.to_parquet())
    typer.echo(f"{out}: {', '.join(names)}.")
