"""Servers that mean harm, on real sockets."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable

from cdc_platform.model.topology import Address


class Hostile:
    """Serves one connection at a time; keeps all that it was sent."""

    def __init__(self, serve: Callable[[socket.socket, Callable[[], bytes]], None]) -> None:
        self.received = self.decrypted = b""
        self.accepted = 0
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
            self.accepted += 1
            with connection:
                connection.settimeout(5)

                def more(connection: socket.socket = connection) -> bytes:
                    data = connection.recv(65536)
                    self.received += data
                    return data

                more.__dict__["server"] = self
                try:
                    self._serve(connection, more)
                    while more():
                        pass
                except OSError:
                    continue

    def close(self) -> None:
        self._server.close()


def greet(connection: socket.socket, *, tls: bool = False) -> None:
    """The greeting of MySQL 8."""
    capabilities = 0x000FFFFF if tls else 0x000FF7FF & ~0x800
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


def mysql(plugin: bytes) -> Callable[[socket.socket, Callable[[], bytes]], None]:
    """Greets as MySQL 8 without TLS, and switches to a plugin that wants the password in clear."""

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        greet(connection)
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


def packet(number: int, body: bytes) -> bytes:
    """A packet of MySQL's protocol."""
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


OK = b"\x00\x00\x00\x02\x00\x00\x00"


def mysql_answering(answer: Callable[[socket.socket], None]) -> Callable[[socket.socket, Callable[[], bytes]], None]:
    """Takes any login without asking for a password, says OK to what sets the session, and then answers so."""

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        greet(connection)
        more()
        connection.sendall(packet(2, OK))
        while sent := more():
            if b"SET " in sent[:12].upper():
                connection.sendall(packet(1, OK))
            else:
                answer(connection)

    return serve


def postgres_answering(answer: Callable[[socket.socket], None]) -> Callable[[socket.socket, Callable[[], bytes]], None]:
    """Has no TLS and lets everybody in; then answers so."""

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        data = more()
        while data[4:8] in (struct.pack(">I", 80877103), struct.pack(">I", 80877104)):
            connection.sendall(b"N")
            data = more()
        connection.sendall(message(b"R", struct.pack(">I", 0)) + message(b"Z", b"I"))
        while more():
            answer(connection)

    return serve


def message(kind: bytes, body: bytes) -> bytes:
    """A message of Postgres' protocol."""
    return kind + struct.pack(">I", len(body) + 4) + body


def mysql_tls(context: ssl.SSLContext | None) -> Callable[[socket.socket, Callable[[], bytes]], None]:
    """MySQL with this certificate, or without TLS; refuses whatever login comes."""

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        greet(connection, tls=context is not None)
        if context is None:
            more()
            return
        # The request for TLS, and not a byte of the handshake.
        header = connection.recv(4, socket.MSG_WAITALL)
        connection.recv(int.from_bytes(header[:3], "little"), socket.MSG_WAITALL)
        _decrypted(connection, context, more)

    return serve


def postgres_tls(context: ssl.SSLContext | None) -> Callable[[socket.socket, Callable[[], bytes]], None]:
    """As `mysql_tls`."""

    def serve(connection: socket.socket, more: Callable[[], bytes]) -> None:
        while True:
            header = connection.recv(4, socket.MSG_WAITALL)
            if len(header) < 4:
                return
            asked = connection.recv(int.from_bytes(header, "big") - 4, socket.MSG_WAITALL)
            if asked != struct.pack(">I", 80877103) or context is None:
                connection.sendall(b"N")
                continue
            connection.sendall(b"S")
            _decrypted(connection, context, more)
            return

    return serve


def _decrypted(connection: socket.socket, context: ssl.SSLContext, more: Callable[[], bytes]) -> None:
    server: Hostile = more.__dict__["server"]
    with context.wrap_socket(connection.dup(), server_side=True) as inside:
        server.decrypted += inside.recv(65536)
