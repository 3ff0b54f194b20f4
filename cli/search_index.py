"""`whence search-index`: make what a search needs before the server does."""

from typing import Annotated

import typer

from cli.folder import Index


def search_index(
    index: Index,
    search: Annotated[
        str, typer.Option(help="sq8, rabitq, or the address of a Milvus: milvus://HOST:PORT.")
    ] = "rabitq",
    min_recall: Annotated[
        float, typer.Option(min=0, max=1, help="Recall@10 that is aimed at.")
    ] = 0.98,
) -> None:
    """Make the search structure of an index, and say how much of the best it finds."""
    from influence.store import IndexReader
    from service.search.choice import open_search

    reader = IndexReader.open(index)
    if search.startswith("milvus"):
        from service.search.milvus import synchronise

        sent, deleted = synchronise(reader, search)
        typer.echo(f"{sent} passages sent, {deleted} deleted, {len(reader)} in all.")
        return
    opened = open_search(reader, wanted=search, memory_bytes=2**62, min_recall=min_recall)
    recall = opened.search.recall
    opened.search.close()
    found = "every row is compared" if recall is None else f"recall@10 {recall:.4f}"
    typer.echo(opened.notice or f"{opened.search.name}: {found}.")
