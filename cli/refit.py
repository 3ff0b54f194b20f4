"""`whence refit`: the basis of an index fitted anew."""

from typing import Annotated

import typer

from cli.folder import Index


def refit(
    index: Index,
    model: Annotated[
        str | None, typer.Option(help="Folder or name; the one that the index names by default.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw unfinished work away first.")
    ] = False,
) -> None:
    """Build the next version of INDEX from the documents it holds, while it is being served."""
    from indexer.progress import Reporter
    from indexer.refit import refit_index
    from influence.model import load_model
    from influence.store import IndexReader

    identity = IndexReader.open(index).manifest.model
    loaded = load_model(model or identity.name, device=device, dtype=identity.dtype)
    typer.echo(refit_index(index, loaded, reporter=Reporter(), restart=restart))
