"""What changes the rows of one database server, for as long as the demo goes on."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import psycopg
import pymysql

from cdc_platform.local.demo.sources import DemoCursor, Shop

# What drivers raise when their server goes away, or is not there yet.
_AWAY = (
    pymysql.err.OperationalError,
    pymysql.err.InterfaceError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    ConnectionError,
)

# Opens a cursor on the database of a shard.
Open = Callable[[str], contextlib.AbstractContextManager[DemoCursor]]


@dataclass(kw_only=True)
class Writer:
    """Inserts from the start; updates and deletes once a shard is among `captured`.

    A change before the snapshot has no event of its own: a row that was updated meanwhile shows up once, one that was
    deleted not at all. The first event proves that the snapshot's position lies behind.

    `shops` are by shard, `pause` is the seconds from one change of each to the next, `changes` how many each gets
    (None: without end). A server that goes away is waited for, `patience` seconds at most.
    """

    shops: Mapping[str, Shop]
    open: Open
    captured: Collection[str]
    stop: threading.Event
    pause: float
    changes: int | None
    patience: float

    def __post_init__(self) -> None:
        self._left: dict[str, int | None] = dict.fromkeys(self.shops, self.changes)
        self._wrote = time.monotonic()

    def write(self) -> None:
        """Return when all changes are made, or at `stop`. Raises what the server's driver did once patience ends."""
        self._wrote = time.monotonic()
        while not self.stop.is_set():
            try:
                with contextlib.ExitStack() as held:
                    cursors = {name: held.enter_context(self.open(name)) for name in self.shops}
                    for name, cursor in cursors.items():
                        self.shops[name].settle(cursor)
                    self._change(cursors)
                    return
            except _AWAY:
                if time.monotonic() - self._wrote > self.patience:
                    raise
                self.stop.wait(0.5)

    def _change(self, cursors: Mapping[str, DemoCursor]) -> None:
        while not self.stop.is_set() and any(left != 0 for left in self._left.values()):
            started = time.monotonic()
            for name, cursor in cursors.items():
                left = self._left[name]
                if name not in self.captured:
                    self.shops[name].insert(cursor)
                elif left != 0:
                    self.shops[name].change(cursor)
                    self._left[name] = None if left is None else left - 1
            self._wrote = time.monotonic()
            behind = not all(name in self.captured for name in cursors)
            wait = max(self.pause, 1.0 if behind else 0.0) - (self._wrote - started)
            self.stop.wait(max(0.0, wait))
