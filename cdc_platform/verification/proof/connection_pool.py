"""Connections that read one table at once, and the limit on how many of them a server gets.

A chunk is a range of keys with a bracket of its own, so it does not matter which
connection reads it, nor when. One connection walks along the key and finds where
the next chunk ends, which costs a server a small part of reading it: the database
alone knows the order of its keys. Idle ones read what was found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore, Lock

from cdc_platform.clients.sources.source import Key, Slice, Source
from cdc_platform.errors import CdcError


class Connections:
    """Lets at most so many connections read from one server at once."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._slots: dict[str, BoundedSemaphore] = {}
        self._lock = Lock()

    @contextmanager
    def pool(self, first: Source, server: str) -> Iterator[ConnectionPool]:
        """Wait until the server has a free slot for `first`; others open as slots allow, and close at the end."""
        with self._lock:
            slots = self._slots.setdefault(server, BoundedSemaphore(self._connections))
        opened: list[Source] = []

        def another() -> Source | None:
            if not slots.acquire(blocking=False):
                return None
            opened.append(first.another())
            return opened[-1]

        with slots:
            try:
                with ThreadPoolExecutor(self._connections, thread_name_prefix="range") as executor:
                    yield ConnectionPool(first, another, executor)
            finally:
                for source in opened:
                    source.close()
                    slots.release()


class ConnectionPool:
    """Some connections to one table. Calls come from one thread; `first` works in it, the others in their own."""

    def __init__(self, first: Source, another: Callable[[], Source | None], executor: ThreadPoolExecutor) -> None:
        self.first = first
        self.size = 1
        self._another, self._executor = another, executor
        self._idle: deque[Source] = deque()

    def grow(self) -> None:
        """One more connection, if the server has a free slot."""
        more = self._another()
        if more is not None:
            self._idle.append(more)
            self.size += 1

    def read(self, after: Key | None, until: Key | None) -> Future[Slice]:
        """Read a chunk: beside the caller when a connection is idle, else here and now.

        The future raises SourceUnavailable and SourceRejected.
        """
        try:
            idle = self._idle.popleft()
        except IndexError:
            return _now(lambda: self.first.read_chunk(after, until))

        def read() -> Slice:
            try:
                return idle.read_chunk(after, until)
            finally:
                self._idle.append(idle)

        return self._executor.submit(read)


def _now(call: Callable[[], Slice]) -> Future[Slice]:
    done: Future[Slice] = Future()
    try:
        done.set_result(call())
    except CdcError as error:
        done.set_exception(error)
    return done
