"""`whence demo`: a real model, a real corpus, an index and a server, on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from service.settings import Settings


def demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")
    ] = 8000,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys; none are needed on this machine alone.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 …")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Where to keep what is made; the user's cache by default.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Start the server when all is made.")
    ] = True,
) -> None:
    """Make a model that has learnt a public corpus, index it, check it, and serve it."""
    from api.server import open_keys, run
    from demo.run import run_demo
    from service.settings import load_settings

    def settings(**places: object) -> "Settings":
        return load_settings(
            host=host, port=port, keys_file=keys, no_auth=keys is None, device=device, **places
        )

    if serve:
        open_keys(settings(index_dir=""))  # what cannot be served is said before minutes of work
    made = run_demo(cache, device=device)
    if serve:
        run(settings(index_dir=made.index_dir, model=str(made.model_dir)))
