"""`whence worker`: the model and its index, fed from a queue in Redis."""

from pathlib import Path
from typing import Annotated

import typer


def worker(
    index: Annotated[
        Path | None, typer.Argument(help="The index folder; WHENCE_INDEX_DIR by default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the index names by default.")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Where the queue is; WHENCE_REDIS_URL by default.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    trust_remote_code: Annotated[
        str | None, typer.Option(help="The model, by its name, if its own code may run.")
    ] = None,
) -> None:
    """Attribute what `whence serve --queue` puts into the queue, until SIGTERM."""
    from service.assembly import run_worker
    from service.settings import load_settings

    run_worker(
        load_settings(
            index_dir=index,
            model=model,
            redis_url=redis_url,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
        )
    )
