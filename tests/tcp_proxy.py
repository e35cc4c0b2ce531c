"""A TCP proxy on loopback that cuts, stalls and resumes connections: a network that tests can break."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType


class TcpProxy:
    """Forwards connections to `target` (host, port).

    `cut()` closes all connections and refuses new ones; `stall()` keeps them
    open and forwards nothing (a half-open network); `slow(n)` forwards n bytes
    a second each way of each connection; `resume()` ends all three. `before_client`
    is called each time before what a client sent is forwarded.
    """

    def __init__(self, target: tuple[str, int], *, before_client: Callable[[], None] = lambda: None) -> None:
        self.target = target
        self._before_client = before_client
        self._flow = threading.Event()
        self._flow.set()
        self._refuse = False
        self._rate: int | None = None
        self._closed = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        """HOST:PORT of the proxy."""
        host, port = self._server.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closed = True
        self._flow.set()
        # Closing alone does not wake a thread that waits in accept().
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._drop()

    def cut(self) -> None:
        """Close all connections; new ones are closed at once."""
        self._refuse = True
        self._drop()

    def stall(self) -> None:
        """Forward nothing, but keep connections open."""
        self._flow.clear()

    def slow(self, bytes_per_second: int) -> None:
        """Forward no more than that."""
        self._rate = bytes_per_second

    def resume(self) -> None:
        """Let it flow again."""
        self._refuse = False
        self._rate = None
        self._flow.set()

    def reset(self) -> None:
        """Close all connections and let new ones flow: a host that was rebooted."""
        self._drop()
        self.resume()

    def _drop(self) -> None:
        with self._lock:
            doomed, self._open = self._open, set()
        for one in doomed:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self._refuse or self._closed:
                client.close()
                continue
            try:
                server = socket.create_connection(self.target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            for source, sink, before in ((client, server, self._before_client), (server, client, lambda: None)):
                threading.Thread(target=self._pump, args=(source, sink, before), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, before: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536 if self._rate is None else max(1, self._rate // 10)):
                self._flow.wait()
                before()
                sink.sendall(data)
                if rate := self._rate:
                    time.sleep(len(data) / rate)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
