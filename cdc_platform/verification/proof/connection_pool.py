"""Connections that read one table at once, and how many of them a server has to bear.

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
        self._places: dict[str, BoundedSemaphore] = {}
        self._lock = Lock()

    @contextmanager
    def crew(self, first: Source, server: str) -> Iterator[ConnectionPool]:
        """Wait until the server has a place for `first`; others join it as places allow, and leave at the end."""
        with self._lock:
            place = self._places.setdefault(server, BoundedSemaphore(self._connections))
        joined: list[Source] = []

        def join() -> Source | None:
            if not place.acquire(blocking=False):
                return None
            joined.append(first.another())
            return joined[-1]

        with place:
            try:
                with ThreadPoolExecutor(self._connections, thread_name_prefix="range") as pool:
                    yield ConnectionPool(first, join, pool)
            finally:
                for source in joined:
                    source.close()
                    place.release()


class ConnectionPool:
    """Some connections to one table. Calls come from one thread; `first` works in it, the others in their own."""

    def __init__(self, first: Source, join: Callable[[], Source | None], pool: ThreadPoolExecutor) -> None:
        self.first = first
        self.size = 1
        self._join, self._pool = join, pool
        self._idle: deque[Source] = deque()

    def grow(self) -> None:
        """One more connection, if there is a place for it."""
        more = self._join()
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

        return self._pool.submit(read)


def _now(call: Callable[[], Slice]) -> Future[Slice]:
    done: Future[Slice] = Future()
    try:
        done.set_result(call())
    except CdcError as error:
        done.set_exception(error)
    return done
