"""Connections whose other end is slow, silent or gone, none of which may take the server's room.

    a head that does not come whole        closed
    a head that is too long                closed
    a body that does not come whole        408 (`api.middleware.BodyLimit`)
    an answer that is not taken            closed by the kernel (`TCP_USER_TIMEOUT`)
    a peer that vanished without a word    closed by the kernel (keep-alive probes)

Each has the same time. An idle connection between two requests is closed after five seconds.
"""

import asyncio
import math
import socket
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from influence.errors import AddressUnavailable

CLIENT_TIMEOUT_S = 20.0

_BACKLOG = 2048
_PROBES = 3  # that a vanished peer leaves without an answer
_HEAD_BYTES = 64 * 2**10  # most of a head: the parser itself would keep any number


def listen(host: str, port: int, *, client_timeout_s: float = CLIENT_TIMEOUT_S) -> socket.socket:
    """A listening socket; made before anything is loaded, so that a taken port is known at once.

    Args:
        host: Address of this machine.
        port: 0 takes any free one.
        client_timeout_s: Of the connections that it accepts, as the kernel holds them to it.

    Raises:
        AddressUnavailable: The port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, or asyncio leaves Nagle's algorithm on, and the body of an answer waits for the
    # client's delayed acknowledgement of its head: 40 ms on Linux.
    listening = socket.socket(family, proto=socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _let_go_of_vanished_peers(listening, client_timeout_s)
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


def new_server(app: FastAPI, *, client_timeout_s: float = CLIENT_TIMEOUT_S) -> uvicorn.Server:
    """An HTTP server that gives a client so long for a request's head."""

    class Hurried(_Hurried):
        head_timeout_s = client_timeout_s

    return uvicorn.Server(
        uvicorn.Config(app, http=Hurried, log_config=None, access_log=False, server_header=False)
    )


class _Hurried(HttpToolsProtocol):
    """Closes a connection on which a request's head has begun, or its first one should have.

    The parser is httptools' (that of Node.js): h11's, in Python, took as long as all the rest of a
    refused request.
    """

    head_timeout_s: float
    _closing_soon: asyncio.TimerHandle | None = None
    _head_bytes = 0  # that have come since anything else was parsed

    # uvicorn's own method narrows the type of asyncio's in the same way.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_HeadWithBody(transport))
        self._wait_for_a_head()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > _HEAD_BYTES:
            self.transport.close()
        self._wait_for_a_head()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._head_bytes = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait_for_a_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()  # it has come
        elif self._closing_soon is None:
            self._closing_soon = self.loop.call_later(self.head_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._closing_soon is not None:
            self._closing_soon.cancel()
            self._closing_soon = None


# For the type checker a transport; what it is not asked here is asked of the one inside.
class _HeadWithBody(asyncio.Transport if TYPE_CHECKING else object):
    """Sends the head of an answer with what is written next, or at the end of this step.

    Every call of the system lets go of the interpreter, which the model's thread then has.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        data = bytes(data)  # which they are already, and then are not copied
        if not self._head and data.startswith(b"HTTP/1."):
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)
            return
        self._transport.write(self._head + data)
        self._head = b""

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""


def _let_go_of_vanished_peers(listening: socket.socket, timeout_s: float) -> None:
    """What accepted connections inherit, where the system has it (Linux)."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    every_s = max(1, math.ceil(timeout_s / (_PROBES + 1)))
    for name, value in (
        ("TCP_KEEPIDLE", every_s),
        ("TCP_KEEPINTVL", every_s),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", math.ceil(1e3 * timeout_s)),
    ):
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
