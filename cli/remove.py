"""`whence remove` and `whence compact`: documents go from the answers, then from the disk."""

from typing import Annotated

import typer

from cli.folder import Index
from cli.versions import say_what_was_cleared
from influence.compaction import compact_index
from influence.removal import Selection, remove_documents
from influence.retention import clear_versions


def remove(
    index: Index,
    document: Annotated[
        list[str] | None, typer.Option(help="Id of a document; repeat for several.")
    ] = None,
    owner: Annotated[
        list[str] | None, typer.Option(help="All documents of an owner; repeat for several.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="field=value, of a field or the metadata; repeat for several."),
    ] = None,
) -> None:
    """Remove documents from INDEX: those that meet every condition. Queries from now on miss them.

    Their texts stay on the disk, in earlier versions and in this one, until `whence compact`.
    """
    conditions = {}
    for condition in where or ():
        name, equals, value = condition.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{condition!r} is not field=value", param_hint="where")
        conditions[name] = value
    if not (document or owner or conditions):
        raise typer.BadParameter("give --document, --owner or --where", param_hint="document")
    selection = Selection(frozenset(document or ()), frozenset(owner or ()), conditions)
    removed = remove_documents(index, selection)
    typer.echo(removed.version)
    typer.echo(f"Removed {removed.documents} documents, {removed.passages} passages.", err=True)


def compact(index: Index) -> None:
    """Rewrite INDEX without what was removed, and clear every earlier version away.

    Afterwards the removed texts are nowhere in the folder, and there is no version to go back to.
    A version that is still being read stays; the command says so.
    """
    version = compact_index(index)
    typer.echo(version)
    say_what_was_cleared(clear_versions(index, keep=0))
