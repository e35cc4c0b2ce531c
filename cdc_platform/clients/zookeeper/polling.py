"""Waiting for ZooKeeper's sockets at the price of one system call."""

from __future__ import annotations

import select
import ssl
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

_FAILED = select.POLLERR | select.POLLHUP


class PollingHandler(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's own handler, but for how it waits.

    kazoo 2.11 makes, fills and closes an epoll object for each wait, and waits five times
    for each znode that it reads: half of the CPU time of reading 10,000 (benchmarks/topology_reader.py).
    """

    def select(
        self, readable: list[Any], writable: list[Any], exceptional: list[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """As `select.select`, with any number of open files; `exceptional` is not looked at, and kazoo asks for none.

        Raises ValueError for a closed socket, as kazoo expects.
        """
        # Of TLS a record may hold several answers: what is decrypted already, the system knows nothing of.
        decrypted = [one for one in readable if isinstance(one, ssl.SSLSocket) and one.fileno() >= 0 and one.pending()]
        if decrypted:
            return decrypted, [], []
        wanted: dict[int, int] = {}
        for sockets, event in ((readable, select.POLLIN), (writable, select.POLLOUT)):
            for one in sockets:
                number = one.fileno()
                if number < 0:
                    raise ValueError("a closed socket")
                wanted[number] = wanted.get(number, 0) | event
        poll = select.poll()
        for number, events in wanted.items():
            poll.register(number, events)
        found = dict(poll.poll(None if timeout is None else max(0.0, timeout) * 1000))
        if any(events & select.POLLNVAL for events in found.values()):
            raise ValueError("a closed socket")
        return (
            [one for one in readable if found.get(one.fileno(), 0) & (select.POLLIN | _FAILED)],
            [one for one in writable if found.get(one.fileno(), 0) & (select.POLLOUT | _FAILED)],
            [],
        )
