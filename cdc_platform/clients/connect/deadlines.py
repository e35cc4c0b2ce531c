"""HTTP whose requests end in time, however slowly the other side speaks.

httpx bounds each read: a server that sends a byte of its headers now and then would be read for ever.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx


class Transport(httpx.HTTPTransport):
    """httpx's transport, over connections of which each read and write ends with the request's time."""

    def __init__(self, verify: ssl.SSLContext | bool, max_connections: int) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._pool.close()
        self._backend = _Backend()
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(verify=verify, trust_env=False),
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=5.0,
            network_backend=self._backend,
        )

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What this thread sends in the block ends in time. The read of an answer is part of it."""
        self._backend.time.end = time.monotonic() + seconds
        try:
            yield
        finally:
            del self._backend.time.end


class _Backend(httpcore.SyncBackend):
    def __init__(self) -> None:
        super().__init__()
        self.time = threading.local()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options), self.time)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, time_: threading.local) -> None:
        self._inner, self._time = inner, time_

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._time)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _left(self, timeout: float | None, late: type[Exception]) -> float | None:
        end = getattr(self._time, "end", None)
        if end is None:
            return timeout
        left = float(end) - time.monotonic()
        if left <= 0:
            raise late("no time left")
        return left if timeout is None else min(left, timeout)
