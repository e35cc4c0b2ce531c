"""A TCP proxy that breaks the wire on request: between our client and a real server."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field


@dataclass
class WireBreaker:
    """Forwards a loopback port to `target`; a context manager.

    `keep`: of each connection's answers, forward so many bytes and then break
    it; None forwards all. `mute`: forward nothing back, and do not break it.
    `scheme` is the target's, for `url`.
    """

    target: tuple[str, int]
    keep: int | None = None
    mute: bool = False
    port: int = 0
    scheme: str = "http"
    _open: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> WireBreaker:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        # `accept` of another thread is not woken by a mere close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.break_all()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def break_all(self) -> None:
        """Break the connections that are open now."""
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # broken already
            finally:
                end.close()
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        sent = 0
        try:
            while data := source.recv(65536):
                if answers and self.mute:
                    continue
                if answers and self.keep is not None:
                    data = data[: max(0, self.keep - sent)]
                    sent += len(data)
                sink.sendall(data)
                if answers and self.keep is not None and sent >= self.keep:
                    break
        except OSError:
            pass  # the other end is gone
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # broken already
