"""`whence redamp`: other dampings for an index that is built already."""

import math
from typing import Annotated

import typer

from cli.folder import Index


def redamp(
    index: Index,
    damping: Annotated[
        float | None,
        typer.Option(help="Fraction of a layer's mean eigenvalue; where nothing was sketched."),
    ] = None,
    joint_damping: Annotated[
        float | None, typer.Option(help="The same across layers; inf turns it off.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model of the index, to calibrate confidence again."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = "auto",
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw an unfinished build away first.")
    ] = False,
) -> None:
    """Publish a version of INDEX with other dampings, without another pass over its documents.

    What was measured with the dampings before is dropped, the calibration of confidence included,
    unless the model is given.
    """
    from indexer.progress import Reporter
    from indexer.redamp import redamp_index

    if damping is None and joint_damping is None:
        raise typer.BadParameter("give --damping, --joint-damping or both", param_hint="damping")
    if damping is not None and not 0 < damping < math.inf:
        raise typer.BadParameter(f"{damping} is not finite and above 0", param_hint="damping")
    if joint_damping is not None and not joint_damping > 0:
        raise typer.BadParameter(f"{joint_damping} is not above 0", param_hint="joint-damping")
    loaded = None
    if model is not None:
        from influence.model import load_model
        from influence.store import IndexReader

        dtype = IndexReader.open(index).manifest.model.dtype
        loaded = load_model(model, device=device, dtype=dtype)
    version = redamp_index(
        index,
        damping=damping,
        joint_damping=joint_damping,
        loaded=loaded,
        reporter=Reporter(),
        restart=restart,
    )
    typer.echo(version)
