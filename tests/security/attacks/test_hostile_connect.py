"""What answers at a worker's URL is no worker: it sends without end, slowly, or too deeply nested, on real sockets."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from cdc_platform.clients.connect import http
from cdc_platform.clients.connect.client import ConnectClient
from cdc_platform.clients.connect.worker_metrics import WorkerMetrics
from cdc_platform.errors import CdcError, ConnectUnavailable
from tests.security.attacks.hostile import Hostile

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def _endless(connection: socket.socket) -> None:
    connection.sendall(HEAD + b'\r\n{"version":"')
    while True:
        connection.sendall(b"x" * 65536)


def _bomb(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"[" + b" " * 2**26))


def _deep(connection: socket.socket) -> None:
    body = b'{"version":"1","kafka_cluster_id":"k","more":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def _slow_head(connection: socket.socket) -> None:
    for byte in HEAD * 100:
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def _slow_body(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.2)


def _no_http(connection: socket.socket) -> None:
    connection.sendall(b"\x00\xff" * 4096)


ANSWERS: list[Callable[[socket.socket], None]] = [_endless, _bomb, _deep, _slow_head, _slow_body, _no_http]


@pytest.fixture(params=ANSWERS, ids=lambda answer: answer.__name__.strip("_"))
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(http, "LARGEST_ANSWER", 2**22)

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        more()
        request.param(connection)

    hostile = Hostile(serve)
    yield f"http://{hostile.address}"
    hostile.close()


def test_every_question_to_connect_ends(url: str) -> None:
    begun = time.monotonic()
    with ConnectClient("main", [url], timeout=1.5) as connect, pytest.raises(ConnectUnavailable):
        connect.connectors()
    assert time.monotonic() - begun < 6


def test_every_question_for_metrics_ends(url: str) -> None:
    begun = time.monotonic()
    metrics = WorkerMetrics(timeout=1.5)
    with pytest.raises(ConnectUnavailable):
        metrics.read("w", f"{url}/metrics")
    metrics.close()
    assert time.monotonic() - begun < 6


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_leads_nowhere(status: int) -> None:
    """A login, or a connector's config, would go to whom the answer names."""
    other = Hostile(lambda connection, more: None)

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        more()
        place = f"Location: http://{other.address}/\r\n".encode()
        connection.sendall(b"HTTP/1.1 %d Moved\r\n%sContent-Length: 0\r\n\r\n" % (status, place))

    hostile = Hostile(serve)
    url = f"http://{hostile.address}"
    with ConnectClient("main", [url], timeout=1.5, auth=("cdc", "hunter2")) as connect, pytest.raises(CdcError):
        connect.connectors()
    metrics = WorkerMetrics(timeout=1.5)
    with pytest.raises(ConnectUnavailable):
        metrics.read("w", f"{url}/metrics")
    metrics.close()
    hostile.close()
    other.close()
    assert hostile.accepted >= 2
    assert other.accepted == 0
