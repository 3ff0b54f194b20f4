"""The server as a process of its own: its one line, its sentences, its end."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from api.connections import listen
from api.server import run
from influence.errors import AddressUnavailable, IndexUnavailable
from service.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = "from api.server import run; from service.settings import load_settings; "
PROGRAM += "run(load_settings(port=0, device='cpu', no_auth=True))"
COUNTING = "import gc, signal; count = lambda: (gc.get_freeze_count(), len(gc.get_objects())); "
COUNTING += "signal.signal(signal.SIGUSR1, lambda *_: print(*count(), flush=True)); "
ASK = json.dumps({"prompt": "who?", "response": "the king of the north " * 20}).encode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(request, tiny, tmp_path):
    """A server in a process of its own, which is ended with the test."""
    places = {"WHENCE_INDEX_DIR": str(tiny.index_dir), "WHENCE_MODEL": str(tiny.model_dir)}
    process = subprocess.Popen(
        [sys.executable, "-c", getattr(request, "param", PROGRAM)],
        env={**os.environ, **places, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("server", [COUNTING + PROGRAM], indirect=True)
def test_a_full_garbage_collection_need_not_look_at_what_is_loaded(server):
    """It would stop every request for as long as half a second."""
    server.stdout.readline()
    server.send_signal(signal.SIGUSR1)
    frozen, others = map(int, server.stdout.readline().split())
    assert frozen > 100_000 > 10 * others


@pytest.fixture
def settings(tiny, tmp_path, monkeypatch):
    """Settings of a server on a port that is free now."""
    monkeypatch.chdir(tmp_path)
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    return load_settings(
        index_dir=tiny.index_dir, model=str(tiny.model_dir), port=port, device="cpu", no_auth=True
    )


def request(port: int, *arguments, **keywords) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(*arguments, **keywords)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def is_ready(port: int) -> bool:
    try:
        return request(port, "GET", "/readyz")[0] == 200
    except ConnectionError:  # it does not listen yet
        return False


def peak_memory_bytes(process: subprocess.Popen) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


def test_it_serves_refuses_100_mb_and_drains(server):
    line = server.stdout.readline()
    address = re.fullmatch(r"Whence serves the index library on http://127\.0\.0\.1:(\d+)\n", line)
    assert address, (line, server.stderr.read())
    port = int(address[1])
    assert request(port, "GET", "/readyz")[0] == 200

    before = peak_memory_bytes(server)
    megabyte = b" " * 2**20
    for chunked in (False, True):
        length = {} if chunked else {"Content-Length": str(100 * 2**20)}
        status, problem = request(
            port,
            "POST",
            "/attribute",
            body=(megabyte for _ in range(100)),
            headers=JSON | length,
            encode_chunked=chunked,
        )
        assert status == 413
        assert "5,000,000 bytes" in problem["detail"]
    assert peak_memory_bytes(server) - before < 50 * 2**20

    # A client that waits for a go-ahead is refused before it sends anything.
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            b"POST /attribute HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n"
            b"Content-Type: application/json\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")

    answers: list[int] = []

    def ask() -> None:
        answers.append(request(port, "POST", "/attribute", body=ASK, headers=JSON)[0])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while not answers:
        time.sleep(0.005)
    server.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 8  # nothing that was accepted is lost
    server.wait(30)
    assert server.returncode in (0, -signal.SIGTERM)
    assert "Traceback" not in server.stderr.read()


def test_control_c_ends_it(settings, capsys):
    def interrupt() -> None:
        try:
            while not is_ready(settings.port):
                time.sleep(0.02)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    stopper = threading.Thread(target=interrupt)
    stopper.start()
    run(settings)  # returns, rather than raising KeyboardInterrupt
    stopper.join(30)
    assert capsys.readouterr().out.count(f"http://127.0.0.1:{settings.port}\n") == 1


def test_without_an_index_it_ends_with_one_sentence(settings, tmp_path, capsys):
    with pytest.raises(IndexUnavailable, match="There is no index in"):
        run(settings.model_copy(update={"index_dir": tmp_path}))
    assert capsys.readouterr().out == ""


def test_a_taken_port_is_one_sentence(settings):
    with (
        listen("127.0.0.1", settings.port),
        pytest.raises(AddressUnavailable, match=rf":{settings.port}: Address already in use\. "),
    ):
        run(settings)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_one_sentence(host):
    with pytest.raises(AddressUnavailable, match=rf"cannot listen on {host}:0: .*choose another"):
        listen(host, 0)


def test_it_listens_on_ipv6():
    try:
        listening = listen("::1", 0)
    except AddressUnavailable as error:
        pytest.skip(str(error))
    assert listening.getsockname()[0] == "::1"
    listening.close()
