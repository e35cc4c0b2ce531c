"""A server at a leader's address asks for the password in clear, on a real socket."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cdc_platform.clients.sources.leader_servers import LeaderServers
from cdc_platform.clients.sources.mariadb import MariaDbSource
from cdc_platform.clients.sources.postgres import PostgresSource
from cdc_platform.errors import CdcError, SourceRejected
from cdc_platform.model.topology import Address, Engine
from tests.connectors.cases import ORDERS, ORDERS_2, PINS, PINS_7
from tests.own_secrets import write_login

PASSWORD = "hunter2-of-the-source"


class Hostile:
    """Serves one connection at a time; keeps all that it was sent."""

    def __init__(self, serve: Callable[[socket.socket, Callable[[], bytes]], None]) -> None:
        self.received = b""
        self._serve = serve
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._server.getsockname()[1])
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)

                def more(connection: socket.socket = connection) -> bytes:
                    data = connection.recv(65536)
                    self.received += data
                    return data

                try:
                    self._serve(connection, more)
                    while more():
                        pass
                except OSError:
                    continue

    def close(self) -> None:
        self._server.close()


def mysql(plugin: bytes) -> Callable[[socket.socket, Callable[[], bytes]], None]:
    """Greets as MySQL 8 without TLS, and switches to a plugin that wants the password in clear."""

    def packet(number: int, body: bytes) -> bytes:
        return struct.pack("<I", len(body))[:3] + bytes([number]) + body

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        capabilities = 0x000FF7FF & ~0x800
        greeting = (
            b"\x0a8.0.36\0"
            + struct.pack("<I", 7)
            + b"12345678\0"
            + struct.pack("<H", capabilities & 0xFFFF)
            + b"\x2d"
            + struct.pack("<H", 2)
            + struct.pack("<H", capabilities >> 16)
            + b"\x15"
            + b"\0" * 10
            + b"123456789012\0mysql_native_password\0"
        )
        connection.sendall(packet(0, greeting))
        more()
        connection.sendall(packet(2, b"\xfe" + plugin + b"\0" + (b"\x04Password: " if plugin == b"dialog" else b"")))

    return serve


def postgres(connection: socket.socket, more: Callable[[], bytes]) -> None:
    """Has no TLS, and asks for a password in clear."""
    data = more()
    while data[4:8] in (struct.pack(">I", 80877103), struct.pack(">I", 80877104)):
        connection.sendall(b"N")
        data = more()
    connection.sendall(b"R" + struct.pack(">II", 8, 3))


@pytest.mark.parametrize("plugin", [b"mysql_clear_password", b"dialog"])
@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.MYSQL], ids=str)
def test_a_mysql_server_gets_no_password_in_clear(tmp_path: Path, plugin: bytes, engine: Engine) -> None:
    hostile = Hostile(mysql(plugin))
    dataset = replace(PINS, engine=engine, credentials=write_login(tmp_path, "pins", "source", "cdc", PASSWORD))
    servers = LeaderServers(secrets_dirs=[str(tmp_path)])
    with pytest.raises(SourceRejected, match="in clear"):
        servers.view(dataset, PINS_7, hostile.address)
    source = MariaDbSource(hostile.address, user="cdc", password=PASSWORD, database="d", table="t", engine=engine)
    with pytest.raises(CdcError):
        source.position()
    hostile.close()
    assert b"cdc" in hostile.received
    assert PASSWORD.encode() not in hostile.received


def test_a_postgres_server_gets_no_password_in_clear(tmp_path: Path) -> None:
    hostile = Hostile(postgres)
    dataset = replace(ORDERS, credentials=write_login(tmp_path, "orders", "source", "cdc", PASSWORD))
    servers = LeaderServers(secrets_dirs=[str(tmp_path)])
    with pytest.raises(CdcError):
        servers.view(dataset, ORDERS_2, hostile.address)
    source = PostgresSource(hostile.address, user="cdc", password=PASSWORD, database="d", schema="public", table="t")
    with pytest.raises(CdcError):
        source.position()
    hostile.close()
    assert b"cdc" in hostile.received
    assert PASSWORD.encode() not in hostile.received
