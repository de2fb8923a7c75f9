"""Connections of clients that are slow, asked of a server that waits half a second."""

import contextlib
import http.client
import socket
import time

import pytest

from fex_jax import explain

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from fex_jax.serve import Limits  # noqa: E402
from tests.serve.serving import served  # noqa: E402

_LONG = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n"


@pytest.fixture(scope="module")
def hasty():
    with served(explain.load("models/digits_fex"), Limits(seconds=0.5)) as port:
        yield port


@pytest.mark.parametrize(
    "begin, more, answer",
    [
        (b"POST /explain HTTP/1.1\r\n" + _LONG, b" ", b"HTTP/1.1 408"),
        (b"POST /explain HTTP/1.1\r\n" + _LONG, b"", b"HTTP/1.1 408"),
        (b"POST /nowhere HTTP/1.1\r\n" + _LONG, b" ", b"HTTP/1.1 404"),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"A: b\r\n", b""),
        (b"", b"", b""),
    ],
    ids=["trickled body", "half a body", "to no address", "headers", "silence"],
)
def test_slow_clients_are_sent_away(hasty, begin, more, answer):
    """Breaks if a client that sends its request bit by bit, or never all of it, holds its
    connection, or hears no reason where its headers are there."""
    said, began = b"", time.monotonic()
    with socket.create_connection(("127.0.0.1", hasty), timeout=0.1) as line:
        line.sendall(begin)
        while time.monotonic() - began < 30:
            try:
                line.sendall(more)
                part = line.recv(2**16)
            except TimeoutError:
                continue
            except OSError:
                break
            if not part:
                break
            said += part
        else:
            pytest.fail("the connection is held")
    assert said.startswith(answer) and bool(said) == bool(answer)
    assert answer != b"HTTP/1.1 408" or b"did not come in 0.5 seconds" in said


def test_a_connection_lives_between_requests(hasty):
    """Breaks if a connection whose requests were whole is closed as a slow one."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", hasty, timeout=60)) as line:
        for _ in range(2):
            line.request("POST", "/explain", "{}", {"Content-Type": "application/json"})
            response = line.getresponse()
            assert (response.status, response.read()[:9]) == (400, b'{"error":')
            time.sleep(1.5)
