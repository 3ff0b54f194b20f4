"""Run the server: listen, load in the background, say when it is ready, drain at the end."""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

import uvicorn

from api.app import create_app
from influence.errors import AddressUnavailable
from service.local import LocalAttributor
from service.settings import Settings

if TYPE_CHECKING:
    from service.engine import Engine


_BACKLOG = 2048


def run(settings: Settings) -> None:
    """Serve until the process is told to stop; prints one line with the address when ready.

    Raises:
        AddressUnavailable: The port is taken, or the address is none of this machine.
        AttributionError: Model or index cannot be loaded.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with listen(settings.host, settings.port) as listening:
        try:
            asyncio.run(_serve(settings, listening))
        except KeyboardInterrupt:
            return  # uvicorn has drained already


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; made before anything is loaded, so that a taken port is known at once.

    Raises:
        AddressUnavailable: The port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise AddressUnavailable(
            f"The server cannot listen on {host}:{port}: {error.strerror or error}. Stop what "
            "listens there, or choose another --port or --host."
        ) from error
    return listening


async def _serve(settings: Settings, listening: socket.socket) -> None:
    attributor = LocalAttributor(lambda: _load(settings), queue_size=settings.queue_size)
    app = create_app(attributor, max_body_bytes=settings.max_body_bytes)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, server_header=False)
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    loading = asyncio.create_task(attributor.wait_loaded())
    await asyncio.wait([serving, loading], return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():  # told to stop before it was loaded
        loading.cancel()
    elif loading.exception() is not None:
        server.should_exit = True
        await serving
    else:
        _announce(listening, loading.result().index.id)
    await serving
    if loading.done() and not loading.cancelled():
        loading.result()  # raises what ended it


def _announce(listening: socket.socket, index: str) -> None:
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    print(f"Whence serves the index {index} on http://{shown}:{port}", flush=True)


def _load(settings: Settings) -> "Engine":
    # Imported in the worker thread: torch takes seconds, and /livez shall answer meanwhile.
    from service.engine import Engine

    return Engine.load(
        settings.index_dir,
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        search_memory_bytes=settings.search_memory_bytes,
    )
