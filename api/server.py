"""Run the server: listen, load in the background, say when it is ready, drain at the end."""

import asyncio
import socket

import uvicorn

from api.app import create_app
from api.authentication import is_loopback
from influence.errors import AddressUnavailable, InvalidInput
from service.assembly import assemble, new_rates
from service.audit import AuditLog
from service.hidden import Hidden
from service.keys import KeyRing
from service.ledger.recorded import Recording, open_recording
from service.logs import configure_logging
from service.metrics import Metrics
from service.settings import Settings, shown_settings

_BACKLOG = 2048


def run(settings: Settings) -> None:
    """Serve until the process is told to stop; prints one line with the address when ready.

    Raises:
        AddressUnavailable: The port is taken, or the address is none of this machine.
        InvalidInput: Neither keys nor `no_auth`, or `no_auth` on an address that others reach.
        AttributionError: Model or index cannot be loaded.
    """
    keys = open_keys(settings)
    recording = open_recording(settings)
    configure_logging(log_format=settings.log_format, level=settings.log_level)
    with listen(settings.host, settings.port) as listening:
        try:
            asyncio.run(_serve(settings, listening, keys, recording))
        except KeyboardInterrupt:
            return  # uvicorn has drained already


def open_keys(settings: Settings) -> KeyRing | None:
    """The keys to serve with; None where it was said that there shall be none.

    Raises:
        InvalidInput: Neither keys nor `no_auth`, both, or `no_auth` where others could ask.
        KeysUnavailable: The file cannot be read.
    """
    if settings.keys_file is not None and settings.no_auth:
        raise InvalidInput("Both --keys and --no-auth are given. Leave one of them out.")
    if settings.keys_file is not None:
        return KeyRing(settings.keys_file)
    if not settings.no_auth:
        raise InvalidInput(
            "It is not said who may ask. Make a key with `whence keys create --file keys.json "
            "--name NAME` and serve with --keys keys.json, or, on this machine alone, --no-auth."
        )
    if not is_loopback(settings.host):
        raise InvalidInput(
            f"--no-auth would let everybody in who reaches {settings.host}. Leave --host at "
            "127.0.0.1, or serve with --keys."
        )
    return None


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


async def _serve(
    settings: Settings,
    listening: socket.socket,
    keys: KeyRing | None,
    recording: Recording | None,
) -> None:
    metrics = Metrics()
    parts = assemble(settings, metrics)
    app = create_app(
        parts.attributor,
        keys=keys,
        rates=new_rates(settings),
        versions=parts.versions,
        recording=recording,
        chat=parts.chat,
        exchanges=parts.exchanges,
        index_dir=None if settings.queue else settings.index_dir,
        local_only=settings.no_auth,
        request_timeout_s=settings.request_timeout_s,
        max_body_bytes=settings.max_body_bytes,
        cors_origins=settings.cors_origins,
        hidden=Hidden(settings.blocked_file, settings.pii_patterns_file),
        audit=AuditLog(settings.audit_log),
        metrics=metrics,
        shown_settings=shown_settings(settings),
    )
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    loading = asyncio.create_task(parts.attributor.wait_loaded())
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
