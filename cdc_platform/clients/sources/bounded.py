"""Connections to source databases that end: whatever the server says, or how slowly, or for how long.

Neither driver bounds an answer as a whole: a read's time-out begins again with each byte, and rows are collected for as
long as they come.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
from pymysql.constants import CLIENT

if TYPE_CHECKING:  # only its stubs are generic
    _MySql = pymysql.Connection[pymysql.cursors.Cursor]
else:
    _MySql = pymysql.Connection

# One statement's answer. The largest of ours are single rows, for the columns that differ in them.
MOST_BYTES = 512 * 1024 * 1024
_POLL_SECONDS = 0.2

# Linux' struct tcp_info: tcpi_bytes_received, https://github.com/torvalds/linux/blob/v4.19/include/uapi/linux/tcp.h#L199
_RECEIVED_AT = 128

# What the drivers raise about packets that are none.
_MALFORMED = (struct.error, LookupError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError)


class Line:
    """The TCP connection below a driver's, cut when an answer takes too long or is too large."""

    def __init__(self, fileno: int) -> None:
        # A duplicate: it may be shut down from another thread, under TLS as well.
        self._socket = socket.socket(fileno=os.dup(fileno))

    def close(self) -> None:
        """Give the duplicate back; the driver closes its own."""
        self._socket.close()

    @contextmanager
    def bounded(self, seconds: float) -> Iterator[list[str]]:
        """Cut the connection when the block takes longer, or more bytes come; then the list says why."""
        why: list[str] = []
        done = threading.Event()
        before = self._received()

        def watch() -> None:
            end = time.monotonic() + seconds
            while not done.wait(min(_POLL_SECONDS, max(0.0, end - time.monotonic()))):
                if self._received() - before > MOST_BYTES:
                    why.append(f"the answer is larger than {MOST_BYTES} bytes")
                elif time.monotonic() >= end:
                    why.append(f"no whole answer within {seconds:.0f} s")
                else:
                    continue
                with suppress(OSError):  # it is closed already
                    self._socket.shutdown(socket.SHUT_RDWR)
                return

        thread = threading.Thread(target=watch, daemon=True, name="line")
        thread.start()
        try:
            yield why
        finally:
            done.set()
            thread.join()

    def _received(self) -> int:
        try:
            info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RECEIVED_AT + 8)
        except OSError:
            return 0
        return int(struct.unpack_from("=Q", info, _RECEIVED_AT)[0]) if len(info) == _RECEIVED_AT + 8 else 0


class BoundedPostgres(psycopg.Connection[Any]):
    """A connection whose answers end after `answer_seconds`, which is set when it is made."""

    answer_seconds = 30.0
    _line: Line | None = None

    def wait(self, *args: Any, **options: Any) -> Any:
        """As the driver's, but bounded. Raises psycopg.OperationalError."""
        if self._line is None:
            self._line = Line(self.pgconn.socket)
        with self._line.bounded(self.answer_seconds) as why:
            try:
                return super().wait(*args, **options)
            except psycopg.Error as error:
                if why:
                    raise psycopg.OperationalError(why[0]) from None
                raise error

    def close(self) -> None:
        """Close both."""
        super().close()
        if self._line is not None:
            self._line.close()
            self._line = None


class BoundedMySql(_MySql):
    """A connection whose answers, that to the login among them, end after `answer_seconds`.

    With `must_encrypt` nothing is sent to a server without TLS. Not connected when made (`defer_connect=True`).
    Raises pymysql.Error, also for what is no answer of a server.
    """

    answer_seconds = 30.0
    must_encrypt = False
    _line: Line | None = None

    def connect(self, sock: socket.socket | None = None) -> None:
        """Connect and log in within `connect_timeout`."""
        try:
            made = sock or socket.create_connection((self.host, self.port), self.connect_timeout)
        except OSError as error:
            raise pymysql.OperationalError(2003, f"Can't connect to MySQL server on {self.host!r} ({error})") from None
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._line = Line(made.fileno())
        try:
            with self._bounded(self._line, self.connect_timeout or 10.0):
                super().connect(made)
        except BaseException:
            # Else the duplicate would hold the connection open.
            self._line.close()
            raise

    def query(self, sql: Any, unbuffered: bool = False) -> int:
        """As the driver's, but bounded."""
        if self._line is None:
            raise pymysql.InterfaceError(0, "not connected")
        with self._bounded(self._line, self.answer_seconds):
            return super().query(sql, unbuffered)

    def close(self) -> None:
        """Close both."""
        try:
            super().close()
        finally:
            if self._line is not None:
                self._line.close()
                self._line = None

    def _request_authentication(self) -> None:
        # The driver of before 2.0 goes on in clear with a server that offers no TLS.
        driver: Any = super()
        if self.must_encrypt and not vars(self)["server_capabilities"] & CLIENT.SSL:
            raise pymysql.OperationalError(2026, "the server offers no TLS, which source_ca demands")
        driver._request_authentication()

    @contextmanager
    def _bounded(self, line: Line, seconds: float) -> Iterator[None]:
        with line.bounded(seconds) as why:
            try:
                yield
            except (pymysql.Error, OSError) as error:
                if why:
                    raise pymysql.OperationalError(2013, why[0]) from None
                raise error
            except _MALFORMED as error:
                text = why[0] if why else f"what came is no answer of a server ({type(error).__name__})"
                raise pymysql.OperationalError(2027, text) from None
