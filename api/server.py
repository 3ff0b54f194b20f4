"""Run the server: listen, load in the background, say when it is ready, drain at the end."""

import asyncio
import socket

from api.app import create_app
from api.authentication import is_loopback
from api.connections import listen, new_server
from api.upstream import UpstreamAttributor
from influence.errors import InvalidInput
from service.assembly import assemble, freeze_what_is_loaded, new_adder, new_additions, new_rates
from service.audit import AuditLog
from service.hidden import Hidden
from service.keys import KeyRing
from service.ledger.recorded import Recording, open_recording
from service.logs import configure_logging
from service.metrics import Metrics
from service.settings import Settings, shown_settings


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
    with listen(
        settings.host, settings.port, client_timeout_s=settings.client_timeout_s
    ) as listening:
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


def _upstream(settings: Settings) -> UpstreamAttributor | None:
    if settings.engine_url is None:
        return None
    if settings.queue:
        raise InvalidInput(
            "Both a queue and WHENCE_ENGINE_URL are given, and one of them attributes. Leave the "
            "other out."
        )
    key = None if settings.engine_key is None else settings.engine_key.get_secret_value()
    return UpstreamAttributor(settings.engine_url, key=key, timeout_s=settings.request_timeout_s)


async def _serve(
    settings: Settings,
    listening: socket.socket,
    keys: KeyRing | None,
    recording: Recording | None,
) -> None:
    metrics = Metrics()
    parts = assemble(settings, metrics, elsewhere=_upstream(settings))
    app = create_app(
        parts.attributor,
        keys=keys,
        rates=new_rates(settings),
        versions=parts.versions,
        recording=recording,
        chat=parts.chat,
        exchanges=parts.exchanges,
        index_dir=None if settings.queue or settings.engine_url else settings.index_dir,
        additions=new_additions(settings),
        local_only=settings.no_auth,
        request_timeout_s=settings.request_timeout_s,
        client_timeout_s=settings.client_timeout_s,
        max_body_bytes=settings.max_body_bytes,
        cors_origins=settings.cors_origins,
        hidden=Hidden(settings.blocked_file, settings.pii_patterns_file),
        audit=AuditLog(settings.audit_log),
        metrics=metrics,
        shown_settings=shown_settings(settings),
    )
    adder = None if settings.queue or settings.engine_url else new_adder(settings)
    server = new_server(app, client_timeout_s=settings.client_timeout_s)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    loading = asyncio.create_task(parts.attributor.wait_loaded())
    await asyncio.wait([serving, loading], return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():  # told to stop before it was loaded
        loading.cancel()
    elif loading.exception() is not None:
        server.should_exit = True
        await serving
    else:
        if adder is not None:
            await adder.start()
        freeze_what_is_loaded()
        _announce(listening, loading.result().index.id)
    await serving
    if adder is not None:
        await adder.close()
    if loading.done() and not loading.cancelled():
        loading.result()  # raises what ended it


def _announce(listening: socket.socket, index: str) -> None:
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    print(f"Whence serves the index {index} on http://{shown}:{port}", flush=True)
