"""Writers at the sources, and their own record of what was committed: what nothing of the platform has touched."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pymysql

from cdc_platform.model.topology import Shard
from tests.faults.sources import Run, Sources

# A source may be away, stopped or without disk space for as long as this (seconds).
PATIENCE = 300.0
_RETRY = 0.2
ERRORS = (pymysql.Error, psycopg.Error, OSError)


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change of one row. `v` is its new value, for a delete the last one; no shard has a `v` twice."""

    shard: str
    key: int
    op: str
    v: int


class Writers:
    """One thread a shard inserts, updates and deletes rows, each in a transaction of its own, until stopped.

    A statement whose answer was lost is looked up before it counts: `committed` holds what
    the source has, with the time (monotonic) at which the writer knew.
    """

    def __init__(self, sources: Sources, shards: tuple[Shard, ...], *, pause: float = 0.02) -> None:
        self.committed: dict[Change, float] = {}
        self.deletes = True
        self._sources = sources
        self._shards = shards
        self._pause = pause
        self._next: dict[str, int] = {shard.id: 1_000_000 for shard in shards}
        self._rows: dict[str, dict[int, int]] = {shard.id: {} for shard in shards}
        self._locks = {shard.id: threading.Lock() for shard in shards}
        self._stop = threading.Event()
        self._open = threading.Event()
        self._open.set()
        self._trouble: list[BaseException] = []
        self._threads = [threading.Thread(target=self._work, args=(shard,), daemon=True) for shard in shards]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Raises what ended a writer."""
        self._stop.set()
        self._open.set()
        for thread in (one for one in self._threads if one.ident is not None):
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a writer hangs"
        if self._trouble:
            raise self._trouble[0]

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is written in this block; what was begun is done before."""
        self._open.clear()
        for lock in self._locks.values():
            with lock:
                pass
        try:
            yield
        finally:
            self._open.set()

    def write(self, shard: Shard, op: str, key: int, statement: Callable[[int], str]) -> Change:
        """One change by hand while the writers are still; `statement` makes the SQL from the value."""
        with self._sources.admin(shard.database) as run:
            v = self._value(shard)
            run(statement(v))
        return self._note(Change(shard.id, key, op, v))

    def note(self, shard: Shard, op: str, rows: dict[int, int]) -> None:
        """Changes that somebody else committed."""
        for key, v in rows.items():
            self._note(Change(shard.id, key, op, v))

    def _value(self, shard: Shard) -> int:
        self._next[shard.id] += 1
        return self._next[shard.id]

    def _note(self, change: Change) -> Change:
        self.committed[change] = time.monotonic()
        return change

    def _work(self, shard: Shard) -> None:
        dice = random.Random(shard.name)
        try:
            while not self._stop.is_set():
                with self._connected(shard) as run:
                    self._write_until_it_breaks(shard, run, dice)
        except BaseException as error:  # noqa: BLE001 (told by stop)
            self._trouble.append(error)

    @contextmanager
    def _connected(self, shard: Shard) -> Iterator[Run]:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with self._sources.admin(shard.database) as run:
                    yield run
                    return
            except ERRORS:
                if time.monotonic() > end:
                    raise
                if self._stop.wait(_RETRY):
                    return

    def _write_until_it_breaks(self, shard: Shard, run: Run, dice: random.Random) -> None:
        rows = self._rows[shard.id]
        while not self._stop.is_set():
            self._open.wait()
            with self._locks[shard.id]:
                if not self._open.is_set():
                    continue
                change, statement = self._choose(shard, rows, dice)
                try:
                    run(statement)
                    done = True
                except ERRORS:
                    done = self._was_committed(shard, change)
                if done:
                    self._note(change)
                    if change.op == "d":
                        del rows[change.key]
                    else:
                        rows[change.key] = change.v
                else:
                    return
            time.sleep(self._pause * dice.uniform(0.5, 1.5))

    def _choose(self, shard: Shard, rows: dict[int, int], dice: random.Random) -> tuple[Change, str]:
        kind = dice.random()
        v = self._value(shard)
        if kind < 0.5 or len(rows) < 20:
            return Change(shard.id, v, "c", v), f"INSERT INTO items VALUES ({v}, {v}, 'written')"
        key = dice.choice(list(rows))
        if kind < 0.9 or not self.deletes:
            return Change(shard.id, key, "u", v), f"UPDATE items SET v = {v} WHERE id = {key}"
        return Change(shard.id, key, "d", rows[key]), f"DELETE FROM items WHERE id = {key}"

    def _was_committed(self, shard: Shard, change: Change) -> bool:
        """Ask the source, once it answers again. Only this thread writes these rows."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with self._sources.admin(shard.database) as run:
                    found = run(f"SELECT v FROM items WHERE id = {change.key}")
                    return not found if change.op == "d" else bool(found) and int(found[0][0]) == change.v
            except ERRORS:
                if time.monotonic() > end:
                    raise
                time.sleep(_RETRY)
