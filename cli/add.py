"""`whence add`: more documents for an index that is there."""

from typing import Annotated

import typer

from cli.folder import Index


def add(
    index: Index,
    corpus: Annotated[str, typer.Argument(help="File, folder or dataset of documents.")],
    model: Annotated[
        str | None, typer.Option(help="Folder or name; the one that the index names by default.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of documents of the same id.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
    trust_remote_code: Annotated[
        str | None, typer.Option(help="The model, by its name, if its own code may run.")
    ] = None,
    skip_bad_records: Annotated[
        bool, typer.Option("--skip-bad-records", help="Count and skip unreadable records.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw unfinished work away first.")
    ] = False,
) -> None:
    """Add the documents of CORPUS to INDEX, or continue after a run that was interrupted."""
    from indexer.add import add_corpus
    from indexer.progress import Reporter
    from influence.model import load_model
    from influence.store import IndexReader

    identity = IndexReader.open(index).manifest.model
    version = add_corpus(
        corpus,
        load_model(
            model or identity.name,
            device=device,
            dtype=identity.dtype,
            trust_remote_code=trust_remote_code,
        ),
        index,
        reporter=Reporter(),
        replace=replace,
        skip_bad_records=skip_bad_records,
        restart=restart,
    )
    typer.echo(version)
