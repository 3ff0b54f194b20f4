"""`whence record`: how a model was trained, for an index that follows the training."""

from pathlib import Path
from typing import Annotated

import typer


def record(
    directory: Annotated[Path, typer.Argument(help="The folder of the checkpoints.")],
    yaml: Annotated[
        Path | None, typer.Option(help="A description of the training; else the Trainer's state.")
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help="Of the Trainer, which does not say: sgd, adam or adamw.")
    ] = "adamw",
    weight_decay: Annotated[float, typer.Option(min=0, help="Of the Trainer, likewise.")] = 0.0,
) -> None:
    """Write training.json beside checkpoints, from a Trainer's output folder or a YAML file."""
    from indexer.record_import import record_of_trainer, record_of_yaml
    from indexer.training_record import write_record

    if yaml is not None:
        found = record_of_yaml(directory, yaml)
    else:
        found = record_of_trainer(directory, optimizer=optimizer, weight_decay=weight_decay)
    typer.echo(
        f"{write_record(directory, found)}: {len(found.checkpoints)} checkpoints, {found.steps} "
        f"steps, {'with' if found.data_order else 'without'} the data order"
    )
