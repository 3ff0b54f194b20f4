"""`whence versions`, `rollback` and `gc`: what there is, what is served, what stays."""

from typing import Annotated

import typer

from cli.folder import Index
from influence.retention import Cleared, clear_versions, list_versions, roll_back


def versions(index: Index) -> None:
    """List the versions of INDEX, the oldest first; * is the current one."""
    for entry in list_versions(index):
        manifest = entry.manifest
        change = manifest.history[-1].kind if manifest.history else "indexed"
        rows = manifest.rows - manifest.removed_rows
        typer.echo(
            f"{'*' if entry.is_current else ' '} {entry.name}  {change:<9}  "
            f"{manifest.corpus.documents} documents, {rows} passages, "
            f"{entry.own_bytes / 1e6:.1f} MB of its own{', being read' if entry.is_read else ''}"
        )


def rollback(
    index: Index,
    to: Annotated[str | None, typer.Option(help="A version; the one before by default.")] = None,
) -> None:
    """Make an earlier version of INDEX current; what was removed since is in it again."""
    typer.echo(roll_back(index, to))


def gc(
    index: Index,
    keep: Annotated[int, typer.Option(min=0, help="So many of the latest versions stay.")] = 2,
) -> None:
    """Clear versions of INDEX away, all but the current one, the latest and those being read."""
    say_what_was_cleared(clear_versions(index, keep=keep))


def say_what_was_cleared(cleared: Cleared) -> None:
    """One line on stdout for each version, and a warning for those that could not be."""
    for name in cleared.versions:
        typer.echo(f"cleared {name}")
    if cleared.still_read:
        typer.echo(
            f"{', '.join(cleared.still_read)}: still being read, so kept. Run whence gc again when "
            "the readers have moved on.",
            err=True,
        )
