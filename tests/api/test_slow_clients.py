"""Clients that are slow, silent or gone, on real sockets: none takes the server from the others."""

import asyncio
import http.client
import json
import socket
import struct
import threading
import time

import pytest

from api.app import create_app
from api.connections import listen
from influence.errors import NotReady
from service.engine import Engine
from service.local import LocalAttributor

TIMEOUT_S = 1.0
HEAD = b"POST /attribute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
TCP_REPAIR = 19  # of Linux: a socket in it is closed without a word to the other end


def nothing():
    raise NotReady("No model is needed for this.")


@pytest.fixture
def hurried(on_a_socket):
    """The port of a server that waits a second for its clients."""
    app = create_app(LocalAttributor(nothing), client_timeout_s=TIMEOUT_S)
    with on_a_socket(app, TIMEOUT_S) as port:
        yield port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def alive(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/livez")
    status = connection.getresponse().status
    connection.close()
    return status


def say_something_for_a_minute(client: socket.socket) -> None:
    for _ in range(600):
        client.send(b"\r\n")
        time.sleep(0.1)


def send_many(client: socket.socket, content: bytes) -> None:
    for _ in range(1_000):
        client.sendall(content)


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_heads_that_never_end_are_closed_and_others_are_answered(hurried):
    slow = [connected(hurried) for _ in range(100)]
    begun = time.monotonic()
    for number, client in enumerate(slow):
        client.sendall(HEAD[: number % len(HEAD)])  # some of them nothing at all
    assert alive(hurried) == 200
    for number, client in enumerate(slow):  # a byte now and then does not help
        try:
            client.sendall(HEAD[number % len(HEAD) :][:1])
        except ConnectionError:
            continue
    assert all(is_closed(client) for client in slow)
    assert time.monotonic() - begun >= TIMEOUT_S  # and not before their time
    assert alive(hurried) == 200
    for client in slow:
        client.close()


def test_a_second_head_on_a_connection_has_no_more_time_than_the_first(hurried):
    with connected(hurried) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert json.loads(answer.read()) == {"status": "alive"}
        client.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        assert is_closed(client)


def test_a_body_that_does_not_come_is_408(hurried):
    with connected(hurried) as client:
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        problem = json.loads(answer.read())
        assert (answer.status, problem["status"]) == (408, 408)
        assert answer.headers["content-type"] == "application/problem+json"
        assert "within 1 seconds" in problem["detail"]
        assert is_closed(client)


def test_an_answer_that_nobody_takes_does_not_keep_its_connection(hurried):
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", hurried))
        # More answers than the buffers of both ends hold, and none of them is read.
        client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
        with pytest.raises(ConnectionError):
            say_something_for_a_minute(client)
    assert alive(hurried) == 200


def test_who_vanished_without_a_word_takes_the_request_along(tiny, on_a_socket, until):
    """A half-open connection: the client's machine lost its power, or its network."""
    free, batches = threading.Event(), []

    class Held(Engine):
        def attribute_many(self, asked):
            if asked[0].request_id != "warm-up":
                batches.append(len(asked))
                assert free.wait(60)
            return super().attribute_many(asked)

    attributor = LocalAttributor(lambda: Held.load(tiny.index_dir, tiny.model_dir, device="cpu"))
    with on_a_socket(create_app(attributor), TIMEOUT_S) as port:
        until(lambda: attributor.ready)
        body = json.dumps({"prompt": "who?", "response": "the king"}).encode()
        request = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        first, vanishing = connected(port), connected(port)
        first.sendall(request)
        until(lambda: batches)
        vanishing.sendall(request.replace(b"who?", b"who!"))
        until(lambda: attributor.waiting == 1)
        try:
            vanishing.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError as error:
            free.set()
            pytest.skip(f"needs CAP_NET_ADMIN to leave without a word: {error}")
        vanishing.close()
        until(lambda: attributor.waiting == 0)  # the kernel has noticed
        free.set()
        assert first.recv(4096).startswith(b"HTTP/1.1 200 ")
        first.close()
    assert batches == [1]


def test_the_body_of_an_answer_does_not_wait_until_its_head_is_acknowledged():
    """Nagle's algorithm is off on what is accepted: with it, an answer takes 40 ms more."""

    async def scenario() -> int:
        accepted = asyncio.get_running_loop().create_future()
        server = await asyncio.start_server(
            lambda _, writer: accepted.set_result(writer), sock=listen("127.0.0.1", 0)
        )
        port = server.sockets[0].getsockname()[1]
        with connected(port):
            writer = await asyncio.wait_for(accepted, 30)
            of_transport = writer.get_extra_info("socket")
            off = of_transport.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
        server.close()
        return off

    assert asyncio.run(scenario()) != 0


def test_a_head_that_goes_on_and_on_is_closed(hurried):
    """Quick enough not to be too late, and never at its end: nothing may pile up."""
    with connected(hurried) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            send_many(client, b"x" * 2**16)
    assert time.monotonic() - begun < 30
    assert alive(hurried) == 200


def test_a_body_is_no_head_however_long(hurried):
    body = b"[" + b" " * 2**20
    with connected(hurried) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 422


def segments_of(client: socket.socket) -> int:
    """Segments with data that have come, as the kernel counts them (`tcpi_data_segs_in`)."""
    return struct.unpack_from(
        "I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152
    )[0]


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"HEAD", 405)])
def test_an_answer_is_sent_at_once_head_and_body(hurried, method, status):
    with connected(hurried) as client:
        for number in range(1, 4):
            client.sendall(method + b" /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = http.client.HTTPResponse(client, method=method.decode())
            answer.begin()
            assert answer.status == status
            assert answer.read() == (b'{"status":"alive"}' if method == b"GET" else b"")
            assert segments_of(client) == number
