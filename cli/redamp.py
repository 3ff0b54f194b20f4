"""`whence redamp`: other dampings for an index that is built already."""

import math
from pathlib import Path
from typing import Annotated

import typer


def redamp(
    index: Annotated[Path, typer.Argument(help="The index folder.")],
    damping: Annotated[
        float | None,
        typer.Option(help="Fraction of a layer's mean eigenvalue; where nothing was sketched."),
    ] = None,
    joint_damping: Annotated[
        float | None, typer.Option(help="The same across layers; inf turns it off.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw an unfinished build away first.")
    ] = False,
) -> None:
    """Publish a version of INDEX with other dampings, without another pass of the model."""
    from indexer.progress import Reporter
    from indexer.redamp import redamp_index

    if damping is None and joint_damping is None:
        raise typer.BadParameter("give --damping, --joint-damping or both", param_hint="damping")
    if damping is not None and not 0 < damping < math.inf:
        raise typer.BadParameter(f"{damping} is not finite and above 0", param_hint="damping")
    if joint_damping is not None and not joint_damping > 0:
        raise typer.BadParameter(f"{joint_damping} is not above 0", param_hint="joint-damping")
    version = redamp_index(
        index,
        damping=damping,
        joint_damping=joint_damping,
        reporter=Reporter(),
        restart=restart,
    )
    typer.echo(version)
