"""A server at a leader's address lets everybody in and answers with harm, on real sockets: nothing leaks, all ends."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.clients.sources import bounded
from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.mariadb import MariaDbSource
from cdc_platform.clients.sources.postgres import PostgresSource
from cdc_platform.errors import SourceRejected, SourceUnavailable
from cdc_platform.model.topology import Dataset, Engine, Shard
from tests.connectors.cases import ORDERS, ORDERS_2, PINS, PINS_7
from tests.own_secrets import write_login
from tests.security.attacks.hostile import Hostile, message, mysql_answering, packet, postgres_answering

CANARY = "a-file-of-this-host"
Answer = Callable[[socket.socket], None]


def _mysql_rows(connection: socket.socket) -> None:
    column = b"\x03def\x00\x00\x00\x01c\x00\x0c" + struct.pack("<HIBHB", 45, 400, 253, 0, 0) + b"\0\0"
    connection.sendall(packet(1, b"\x01") + packet(2, column) + packet(3, b"\xfe\0\0\x02\0"))
    number = 4
    while True:
        rows = [packet((number + n) % 256, b"\xfa" + b"x" * 250) for n in range(256)]
        connection.sendall(b"".join(rows))
        number += 256


def _drip(byte: bytes) -> Answer:
    def answer(connection: socket.socket) -> None:
        while True:
            connection.sendall(byte)
            time.sleep(0.2)

    return answer


def _garbage(connection: socket.socket) -> None:
    connection.sendall(packet(1, b"\xfc\xff") + b"\xff\x00\x17" * 4096)


def _silence(connection: socket.socket) -> None:
    time.sleep(4)


def _postgres_rows(connection: socket.socket) -> None:
    column = b"c\0" + struct.pack(">IhIhih", 0, 0, 25, -1, -1, 0)
    connection.sendall(message(b"1", b"") + message(b"2", b"") + message(b"T", struct.pack(">h", 1) + column))
    row = message(b"D", struct.pack(">hi", 1, 250) + b"x" * 250)
    while True:
        connection.sendall(row * 256)


def _notices(connection: socket.socket) -> None:
    while True:
        connection.sendall(message(b"N", b"SNOTICE\0M" + b"x" * 200 + b"\0\0") * 64)


def local_file(path: Path) -> Answer:
    """Asks for a file of the client's host, as LOAD DATA LOCAL INFILE does."""
    return lambda connection: connection.sendall(packet(1, b"\xfb" + str(path).encode()))


MYSQL = {"rows": _mysql_rows, "drip": _drip(b"\0"), "garbage": _garbage, "silence": _silence}
POSTGRES = {
    "rows": _postgres_rows,
    "drip": _drip(b"T"),
    "garbage": _garbage,
    "silence": _silence,
    "notices": _notices,
}


def assert_all_end(dataset: Dataset, shard: Shard, tmp_path: Path, hostile: Hostile) -> None:
    own = replace(dataset, credentials=write_login(tmp_path, dataset.name, "source", "cdc", "hunter2"))
    shard = replace(shard, leader=hostile.address)
    source = (
        PostgresSource(hostile.address, user="cdc", password="p", database="d", schema="s", table="t", timeout=1.0)
        if dataset.engine is Engine.POSTGRES
        else MariaDbSource(hostile.address, user="cdc", password="p", database="d", table="t", timeout=1.0)
    )
    asked: list[Callable[[], object]] = [
        lambda: LeaderServers(timeout=1.0, secrets_dirs=[str(tmp_path)]).view(own, shard, hostile.address),
        lambda: RealSourceLogs(timeout=1.0, secrets_dirs=[str(tmp_path)]).check(own, shard),
        source.inspect,
    ]
    for ask in asked:
        begun = time.monotonic()
        with pytest.raises((SourceUnavailable, SourceRejected)):
            ask()
        assert time.monotonic() - begun < 15
    hostile.close()
    assert b"hunter2" not in hostile.received


@pytest.mark.parametrize("answer", MYSQL.values(), ids=MYSQL)
def test_no_answer_of_a_mysql_server_is_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(bounded, "MOST_BYTES", 2**22)
    assert_all_end(PINS, PINS_7, tmp_path, Hostile(mysql_answering(answer)))


@pytest.mark.parametrize("answer", POSTGRES.values(), ids=POSTGRES)
def test_no_answer_of_a_postgres_server_is_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(bounded, "MOST_BYTES", 2**22)
    assert_all_end(ORDERS, ORDERS_2, tmp_path, Hostile(postgres_answering(answer)))


def test_a_mysql_server_gets_no_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(CANARY)
    hostile = Hostile(mysql_answering(local_file(file)))
    assert_all_end(PINS, PINS_7, tmp_path, hostile)
    assert CANARY.encode() not in hostile.received


def _drip_greeting(connection: socket.socket, more: Callable[[], bytes]) -> None:
    # A packet of 16 MiB that comes a byte at a time.
    connection.sendall(b"\xff\xff\xff\x00")
    while True:
        connection.sendall(b"\x0a")
        time.sleep(0.2)


def _huge_greetings(connection: socket.socket, more: Callable[[], bytes]) -> None:
    # A packet of the greatest length goes on in the next, for ever.
    number = 0
    while True:
        connection.sendall(b"\xff\xff\xff" + bytes([number % 256]) + b"\x0a" * (2**24 - 1))
        number += 1


def _endless_login(connection: socket.socket, more: Callable[[], bytes]) -> None:
    data = more()
    while data[4:8] in (struct.pack(">I", 80877103), struct.pack(">I", 80877104)):
        connection.sendall(b"N")
        data = more()
    while True:
        connection.sendall(message(b"N", b"SNOTICE\0M" + b"x" * 200 + b"\0\0") * 64)


def _huge_message(connection: socket.socket, more: Callable[[], bytes]) -> None:
    data = more()
    while data[4:8] in (struct.pack(">I", 80877103), struct.pack(">I", 80877104)):
        connection.sendall(b"N")
        data = more()
    connection.sendall(message(b"R", struct.pack(">I", 0)) + message(b"Z", b"I"))
    more()
    connection.sendall(b"D" + struct.pack(">I", 2**31 - 1))
    while True:
        connection.sendall(b"x" * 65536)


def _half_open(connection: socket.socket, more: Callable[[], bytes]) -> None:
    while more():
        pass
    time.sleep(4)


HANDSHAKES: dict[str, tuple[Dataset, Shard, Callable[[socket.socket, Callable[[], bytes]], None]]] = {
    "mysql drip": (PINS, PINS_7, _drip_greeting),
    "mysql huge": (PINS, PINS_7, _huge_greetings),
    "mysql half-open": (PINS, PINS_7, _half_open),
    "postgres endless": (ORDERS, ORDERS_2, _endless_login),
    "postgres huge": (ORDERS, ORDERS_2, _huge_message),
    "postgres half-open": (ORDERS, ORDERS_2, _half_open),
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_no_handshake_is_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(bounded, "MOST_BYTES", 2**22)
    dataset, shard, serve = HANDSHAKES[name]
    hostile = Hostile(serve)
    assert_all_end(dataset, shard, tmp_path, hostile)
    assert hostile.accepted >= 1
