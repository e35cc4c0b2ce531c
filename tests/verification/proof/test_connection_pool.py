"""Ranges of keys read by several connections: what comes out does not depend on which was first."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cdc_platform.clients.sources.source import Key, Slice
from cdc_platform.errors import SourceUnavailable
from cdc_platform.verification.proof.connection_pool import Connections
from cdc_platform.verification.proof.scan import Scan
from cdc_platform.verification.proof.verdicts import Verdict
from tests.verification.proof.memory import SHAPE, MemoryTable, MemoryTopic, MemoryWorld


@dataclass
class Watched:
    """A table in memory by one of several connections; counts those that read at once."""

    table: MemoryTable
    shared: dict[str, Any] = field(
        default_factory=lambda: {"lock": threading.Lock(), "now": 0, "most": 0, "made": 0, "closed": 0, "by": set()}
    )
    number: int = 0
    before: Callable[[int, Key | None], None] = lambda number, after: None

    def another(self) -> Watched:
        self.shared["made"] += 1
        return Watched(self.table, self.shared, self.shared["made"], self.before)

    def read_chunk(self, after: Key | None, until: Key | None) -> Slice:
        with self.shared["lock"]:
            self.shared["now"] += 1
            self.shared["most"] = max(self.shared["most"], self.shared["now"])
            self.shared["by"].add(self.number)
        try:
            self.before(self.number, after)
            return self.table.read_chunk(after, until)
        finally:
            with self.shared["lock"]:
                self.shared["now"] -= 1

    def close(self) -> None:
        self.shared["closed"] += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)


def _table(rows: int) -> MemoryTable:
    table = MemoryTable(MemoryTopic())
    for key in range(rows):
        table.put(key, f"row {key}")
    return table


def _scanned(home: Path, source: Any, connections: Connections, chunk_rows: int = 10) -> Scan:
    scan = Scan(home, ("run", "d", "t", "0"), SHAPE)
    with connections.pool(source, "there") as pool:
        scan.run(pool, lambda rows: None, chunk_rows=chunk_rows)
    return scan


def test_chunks_of_several_connections_stand_in_the_order_of_the_key(tmp_path: Path) -> None:
    rng = random.Random(3)
    source = Watched(_table(1_000), before=lambda number, after: time.sleep(rng.random() / 500))
    scan = _scanned(tmp_path, source, Connections(4))
    assert source.shared["most"] == 4 and source.shared["made"] == source.shared["closed"] == 3
    ends = [chunk.until for chunk in scan.chunks]
    assert ends == [(str(key),) for key in range(9, 1_000, 10)] + [None]
    assert [chunk.after for chunk in scan.chunks] == [None, *ends[:-1]]
    assert scan.complete and scan.rows == 1_000
    assert len(set(scan.source_rows(0, 1 << 64).keys.tolist())) == 1_000


def test_a_slow_chunk_holds_up_no_more_than_memory_allows(tmp_path: Path) -> None:
    """While the first chunk of another connection stands still, the others read on: so many chunks, and then wait."""
    go, read = threading.Event(), list[Key | None]()

    def before(number: int, after: Key | None) -> None:
        if number == 1 and not go.is_set():
            assert go.wait(30)
        read.append(after)
        if number == 0 and len(read) >= 8 + 2 * 2:
            go.set()

    scan = _scanned(tmp_path, Watched(_table(1_000), before=before), Connections(2))
    assert go.is_set() and scan.rows == 1_000


def test_a_small_table_is_read_by_one_connection(tmp_path: Path) -> None:
    source = Watched(_table(75))
    assert _scanned(tmp_path, source, Connections(4)).rows == 75
    assert (source.shared["made"], source.shared["by"]) == (0, {0})


def test_shards_of_one_server_share_its_connections(tmp_path: Path) -> None:
    connections, shared = Connections(3), Watched(_table(0)).shared
    tables = [Watched(_table(300), shared, before=lambda number, after: time.sleep(0.001)) for _ in range(6)]
    rows: list[int] = []

    def read(at: int) -> None:
        rows.append(_scanned(tmp_path / str(at), tables[at], connections).rows)

    threads = [threading.Thread(target=read, args=(at,)) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert rows == [300] * 6
    assert shared["most"] == 3
    assert shared["made"] == shared["closed"]


def test_a_connection_that_is_lost_costs_the_chunks_ahead_and_no_place(tmp_path: Path) -> None:
    lost = [0]

    def before(number: int, after: Key | None) -> None:
        if number == 1 and lost[0] < 2:
            lost[0] += 1
            raise SourceUnavailable("It did not answer.", where="there", cure="Wait.")

    source, connections = Watched(_table(1_000), before=before), Connections(2)
    scan = Scan(tmp_path, ("run", "d", "t", "0"), SHAPE)
    source.shared["made"] = 0
    for _ in range(2):
        with pytest.raises(SourceUnavailable), connections.pool(source, "there") as pool:
            scan.run(pool, lambda rows: None, chunk_rows=10)
        source.shared["made"] = 0  # the next one that joins is number 1 again
    with connections.pool(source, "there") as pool:
        scan.run(pool, lambda rows: None, chunk_rows=10)
        assert pool.size == 2
    assert scan.rows == 1_000 and scan.complete
    keys = scan.source_rows(0, 1 << 64).keys.tolist()
    assert len(keys) == len(set(keys)) == 1_000


def test_a_scan_that_goes_on_keeps_where_it_began(tmp_path: Path) -> None:
    """No bracket begins before it: what was settled in the fold by then is all that may be."""
    table = _table(100)

    def before(number: int, after: Key | None) -> None:
        if after == ("49",) and table.seq == 100:
            raise SourceUnavailable("It did not answer.", where="there", cure="Wait.")

    source, begun = Watched(table, before=before), str(table.position())
    with pytest.raises(SourceUnavailable):
        _scanned(tmp_path, source, Connections(1))
    assert str(Scan(tmp_path, ("run", "d", "t", "0"), SHAPE).start) == "None"  # nothing was written down yet
    scan = Scan(tmp_path, ("run", "d", "t", "0"), SHAPE)
    for _ in range(2):
        with suppress(SourceUnavailable), Connections(1).pool(source, "there") as pool:
            scan.run(pool, lambda rows: None, chunk_rows=10)
        table.put(1, "later")
    assert scan.complete and str(table.position()) != begun
    assert str(scan.start) == str(Scan(tmp_path, ("run", "d", "t", "0"), SHAPE).start) == begun


def test_completeness_by_several_connections_is_proven_while_rows_change(tmp_path: Path) -> None:
    world, rng = MemoryWorld(tmp_path, policy={"chunk_rows": 5, "reach_seconds": 1}), random.Random(5)
    for key in range(400):
        world.table.put(key, "x")

    def write() -> None:
        for _ in range(3):
            key = rng.randrange(450)
            world.table.delete(key) if rng.random() < 0.4 else world.table.put(key, str(rng.random()))

    world.table.during_read = write
    for run in range(3):
        verdict = world.verify(f"run{run}")
        assert verdict.verdict is Verdict.PROVEN, verdict
        assert verdict.source_rows == verdict.topic_rows
