"""`whence serve`: the HTTP API and the page, from an index."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    index: Annotated[
        str | None,
        typer.Argument(help="A folder, or a URL such as s3://…; WHENCE_INDEX_DIR by default."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model; the one that the index names by default.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys that `whence keys create` wrote.")
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="No keys; only on an address of this machine.")
    ] = False,
    queue: Annotated[
        bool, typer.Option("--queue", help="Let workers attribute, over the queue in Redis.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32 or bfloat16.")] = None,
    trust_remote_code: Annotated[
        str | None, typer.Option(help="The model, by its name, if its own code may run.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(help="auto, exact, sq8, rabitq, gpu or milvus://HOST:PORT.")
    ] = None,
    memory_limit: Annotated[
        str | None, typer.Option(help="Most memory for the search's vectors, such as 8GiB.")
    ] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Recall@10 below which every row is compared."),
    ] = None,
) -> None:
    """Serve an index. What is not given is read from WHENCE_* variables."""
    from api.server import run
    from service.settings import load_settings

    run(
        load_settings(
            # By workers, only they need it.
            index_dir=Path() if queue and index is None else index,
            queue=queue or None,
            model=model,
            host=host,
            port=port,
            keys_file=keys,
            no_auth=no_auth or None,
            device=device,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            search=search,
            search_memory_bytes=memory_limit,
            search_min_recall=min_recall,
        )
    )
