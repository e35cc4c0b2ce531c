"""Windows by source positions: what belongs to which, up to when all shards are complete, who holds it up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cdc_platform.errors import SourceUnavailable, TopologyError
from cdc_platform.model.positions import Committed, MariaDbPosition, PostgresPosition
from cdc_platform.model.topology import Engine, Problem, Topology
from cdc_platform.verification.windows.boundaries import (
    KEPT,
    NONE,
    OPEN,
    Marks,
    WindowPolicy,
    complete_up_to,
    due,
    ended,
    marked,
    windows_of,
)
from cdc_platform.verification.windows.progress import BEHIND, DatasetWindows, advance, known_windows
from tests.verification.proof.memory import MemoryWorld

HOUR = 3600


def gtid(number: int) -> MariaDbPosition:
    return MariaDbPosition.parse(f"0-1-{number}")


def mark(marks: Marks, now: float, position: Any, engine: Engine = Engine.MARIADB) -> Marks:
    found = marked(engine, marks, due(marks, now), position)
    assert found is not None
    return found


def of(marks: Marks, *numbers: int) -> list[int]:
    found = windows_of(
        Engine.MARIADB, marks, np.zeros(len(numbers), dtype=np.uint32), np.array(numbers, dtype=np.uint64)
    )
    return [int(each) for each in found]


def test_watermark_each_event_belongs_to_the_window_whose_boundary_sees_it_first() -> None:
    marks = mark(mark(Marks(first=HOUR, seconds=HOUR), HOUR, gtid(10)), 2 * HOUR, gtid(15))
    assert of(marks, 0, 1, 10, 11, 15, 16) == [NONE, HOUR, HOUR, 2 * HOUR, 2 * HOUR, OPEN]


def test_watermark_a_transaction_open_across_two_boundaries_belongs_to_the_window_it_commits_in() -> None:
    """Postgres: its rows have LSNs of the first hour, its commit is in the third."""
    marks = Marks(first=HOUR, seconds=HOUR)
    for hour, snapshot, lsn in (
        (1, "100:102:100", "0/1000"),
        (2, "100:105:100", "0/2000"),
        (3, "106:106:", "0/3000"),
    ):
        marks = mark(marks, hour * HOUR, PostgresPosition.of(snapshot, lsn, lsn), Engine.POSTGRES)
    found = windows_of(
        Engine.POSTGRES, marks, np.array([100, 101, 103], dtype=np.uint32), np.array([0x900, 0x910, 0x1500], np.uint64)
    )
    assert found.tolist() == [3 * HOUR, HOUR, 2 * HOUR]


@pytest.mark.parametrize("off", [-600, 0, 600])
def test_watermark_a_clock_ten_minutes_off_moves_boundaries_and_neither_loses_nor_doubles_an_event(off: int) -> None:
    """One transaction a minute; the clock that asks for boundaries is `off` seconds wrong."""
    marks = Marks(first=HOUR, seconds=HOUR)
    for minute in range(1, 200):
        if due(marks, minute * 60 + off):
            marks = mark(marks, minute * 60 + off, gtid(minute))
    found = of(marks, *range(1, 200))
    shift = off // 60
    assert [found.count(boundary * HOUR) for boundary in (2, 3)] == [60, 60]
    assert found.index(2 * HOUR) == 60 - shift, "the minute of the first boundary belongs to the window before it"
    assert found.count(HOUR) + found.count(2 * HOUR) + found.count(3 * HOUR) + found.count(OPEN) == 199


def test_watermark_boundaries_missed_while_a_source_was_away_share_its_next_position() -> None:
    marks = mark(Marks(first=HOUR, seconds=HOUR), HOUR, gtid(10))
    assert due(marks, 4.5 * HOUR) == [2 * HOUR, 3 * HOUR, 4 * HOUR]
    marks = mark(marks, 4.5 * HOUR, gtid(30))
    assert of(marks, 11, 30) == [2 * HOUR, 2 * HOUR]
    assert due(marks, 4.9 * HOUR) == []


def test_watermark_a_position_behind_the_last_one_makes_no_boundary() -> None:
    marks = mark(Marks(first=HOUR, seconds=HOUR), HOUR, gtid(10))
    assert marked(Engine.MARIADB, marks, [2 * HOUR], gtid(9)) is None


def test_watermark_complete_is_what_the_connector_committed_and_never_goes_back() -> None:
    marks = mark(mark(Marks(first=HOUR, seconds=HOUR), HOUR, gtid(10)), 2 * HOUR, gtid(15))

    def complete(text: str, busy: str | None = None) -> int:
        return complete_up_to(Engine.MARIADB, marks, Committed(Engine.MARIADB, text, busy))

    assert [complete(f"0-1-{number}") for number in (9, 10, 14, 15)] == [0, HOUR, HOUR, 2 * HOUR]
    assert complete("0-1-15", "initial snapshot") == 0
    assert complete("0-1-15", "incremental snapshot") == 2 * HOUR
    marks = msgspec.structs.replace(marks, complete=HOUR)
    assert complete("0-1-1") == HOUR


def test_watermark_only_so_many_boundaries_are_kept() -> None:
    marks = Marks(first=HOUR, seconds=HOUR)
    for hour in range(1, KEPT + 10):
        marks = mark(marks, hour * HOUR, gtid(hour))
    assert (min(marks.positions), len(marks.positions)) == (10 * HOUR, KEPT)
    assert ended(HOUR, marks.last, HOUR)[0] == 10 * HOUR


@pytest.fixture
def world(tmp_path: Path) -> MemoryWorld:
    made = MemoryWorld(tmp_path / "cache", shards=("00000", "00001"), more={"windows": {"minutes": 60}})
    made.cache.mkdir()
    return made


def step(world: MemoryWorld, now: float, topology: Topology | None = None) -> DatasetWindows:
    policy = WindowPolicy(minutes=60)
    return advance(world.outside(), world.state, topology or world.topology, "d", policy, now, wait_seconds=0.0)


def put(world: MemoryWorld, shard: str, *keys: int) -> None:
    for key in keys:
        world.tables[shard].put(key, f"row {key}")


def test_watermark_a_window_ends_when_it_is_whole_on_every_shard_and_laggards_are_named(world: MemoryWorld) -> None:
    put(world, "00000", 1)
    put(world, "00001", 1)
    assert step(world, 0.5 * HOUR).ended() == []
    assert step(world, HOUR + 5).ended() == [], "what was before the first boundary is no whole window"
    put(world, "00000", 2)
    put(world, "00001", 2)
    world.tables["00001"].committed = 1
    found = step(world, 2 * HOUR + 5)
    assert (found.ended(), found.completeness.boundary) == ([], HOUR)
    assert found.completeness.laggards == {"00001": "its connector has not committed the boundary's position yet"}
    world.tables["00001"].committed = None
    assert step(world, 2 * HOUR + 10).ended() == [HOUR]
    assert step(world, 2 * HOUR + 15).ended() == [HOUR]


def test_watermark_an_idle_shard_holds_nothing_up_and_is_not_asked_again(world: MemoryWorld) -> None:
    put(world, "00000", 1)
    put(world, "00001", 1)
    for hour in (0, 1, 2):
        put(world, "00000", 10 + hour)
        found = step(world, hour * HOUR + 1)
    assert found.ended() == [HOUR]
    written = len(world.state.writes)
    world.tables.clear()  # would be a KeyError for whoever asked
    assert step(world, 2 * HOUR + 60).ended() == [HOUR]
    assert not any(world.state.writes[written:])


def test_watermark_a_failover_to_a_server_that_lacks_transactions_holds_its_window(world: MemoryWorld) -> None:
    put(world, "00000", 1, 2, 3)
    put(world, "00001", 1)
    step(world, 1)
    step(world, HOUR + 1)
    world.tables["00000"].seq = 2
    found = step(world, 2 * HOUR + 1)
    assert (found.ended(), found.completeness.laggards) == ([], {"00000": BEHIND})
    put(world, "00000", 4, 5)
    assert step(world, 2 * HOUR + 9).ended() == [HOUR]


def test_watermark_a_source_that_is_away_holds_its_shard_and_is_named(
    world: MemoryWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(world, "00000", 1)
    put(world, "00001", 1)
    step(world, 1)
    step(world, HOUR + 1)

    def away() -> MariaDbPosition:
        raise SourceUnavailable("no answer", cure="Wait.")

    with monkeypatch.context() as patch:
        patch.setattr(world.tables["00001"], "position", away)
        found = step(world, 2 * HOUR + 1)
    assert found.ended() == []
    assert list(found.completeness.laggards) == ["00001"]
    assert "gives no position: no answer" in found.completeness.laggards["00001"]
    assert step(world, 2 * HOUR + 9).ended() == [HOUR]


def test_watermark_a_shard_that_is_added_counts_from_its_first_boundary_and_one_that_leaves_holds_nothing(
    world: MemoryWorld,
) -> None:
    put(world, "00000", 1)
    put(world, "00001", 1)
    whole = world.topology
    one = replace(whole, shards={"d": whole.shards["d"][:1]})
    step(world, 1, one)
    step(world, HOUR + 1, one)
    found = step(world, 2 * HOUR - 1)
    assert found.marks["00001"].first == 2 * HOUR
    world.tables["00001"].committed = 0
    assert step(world, 2 * HOUR + 1).ended() == [], "the window in which it came waits for it"
    world.tables["00001"].committed = None
    assert step(world, 2 * HOUR + 2).ended() == [HOUR]
    put(world, "00001", 2)
    world.tables["00001"].committed = 1
    assert step(world, 3 * HOUR + 1).ended() == [HOUR]
    found = step(world, 3 * HOUR + 9, one)
    assert (found.ended(), found.left) == ([HOUR, 2 * HOUR], ("00001",))


def test_watermark_nothing_is_complete_while_the_topology_of_a_shard_cannot_be_read(world: MemoryWorld) -> None:
    put(world, "00000", 1)
    put(world, "00001", 1)
    for hour in (0, 1, 2):
        step(world, hour * HOUR + 1)
    whole = world.topology
    broken = replace(
        whole,
        shards={"d": whole.shards["d"][:1]},
        problems=(Problem(kind="shard", name="d.00001", message="not JSON"),),
    )
    found = step(world, 2 * HOUR + 9, broken)
    assert (found.ended(), list(found.completeness.laggards)) == ([], ["d.00001"])


def test_watermark_windows_of_another_length_begin_anew(world: MemoryWorld) -> None:
    for hour in (0, 1, 2):
        step(world, hour * HOUR + 1)
    found = advance(world.outside(), world.state, world.topology, "d", WindowPolicy(minutes=30), 2 * HOUR + 9, 0.0)
    assert (found.first, found.seconds, found.ended()) == (2 * HOUR + 1800, 1800, [])
    known = known_windows(world.state.read(), "d")
    assert known is not None
    assert {each.seconds for each in known[2].values()} == {1800}


@pytest.mark.parametrize(("minutes", "allowed"), [(5, True), (60, True), (360, True), (7, False), (300, False)])
def test_watermark_windows_divide_an_hour_or_a_day(world: MemoryWorld, minutes: int, allowed: bool) -> None:
    dataset = replace(world.topology.datasets["d"], windows={"minutes": minutes})
    if allowed:
        assert WindowPolicy.of(dataset) == WindowPolicy(minutes=minutes)
        return
    with pytest.raises(TopologyError, match=r"do not divide an hour or a day.*Take a divisor"):
        WindowPolicy.of(dataset)


def test_watermark_there_are_no_windows_without_the_block(world: MemoryWorld) -> None:
    assert WindowPolicy.of(replace(world.topology.datasets["d"], windows={})) is None
