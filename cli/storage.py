"""`whence push` and `whence pull`: an index between a folder and a URL."""

from pathlib import Path
from typing import Annotated

import typer

from cli.folder import Index
from influence.remote import folder_of

Url = Annotated[str, typer.Argument(help="A URL of fsspec, such as s3://bucket/index.")]


def push(
    index: Index,
    url: Url,
) -> None:
    """Put the current version of an index at a URL, CURRENT last."""
    from indexer.progress import Reporter
    from influence import transfer
    from influence.store import IndexReader

    files = IndexReader.open(index).manifest.files
    total = sum(entry.size_bytes for entry in files.values())
    with Reporter().step("Pushing", total=total, unit="bytes") as advance:
        version = transfer.push(index, _checked(url), advance=advance)
    typer.echo(version)


def pull(
    url: Url,
    out: Annotated[Path, typer.Argument(help="The index folder.", parser=folder_of, metavar="OUT")],
) -> None:
    """Bring the current version of an index from a URL into a folder.

    Serving and reading an index at a URL need no pull: they keep a cache of their own.
    """
    from indexer.progress import Reporter
    from influence import transfer

    objects = transfer.default_cache_dir() / "objects"
    total = transfer.total_bytes(_checked(url))
    with Reporter().step("Pulling", total=total, unit="bytes") as advance:
        version = transfer.pull(url, out, objects, advance=advance)
    typer.echo(version)


def _checked(url: str) -> str:
    from influence.remote import is_url

    if not is_url(url):
        raise typer.BadParameter(f"{url!r} is no URL; give one such as s3://bucket/index")
    return url
