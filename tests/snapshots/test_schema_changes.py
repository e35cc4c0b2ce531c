"""Columns and tables that come, go and change their name while shards are bootstrapped and streamed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cdc_platform.connectors.identity import table_topic
from cdc_platform.defs.sampled_columns import column_schema
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import BootstrapMode, Engine, Shard, Table
from cdc_platform.reconciler.run_pass import reconcile
from cdc_platform.snapshots.connector_waves import stop
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.run_records import watermarks
from tests.snapshots.conftest import MakeWorld, Working, backfill, bootstrap, go
from tests.snapshots.live import TABLES, Judge, World, Writers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

ENGINES = pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.POSTGRES], ids=str)
SLOW = Load(max_parallel_shards=2, max_parallel_per_host=2, max_rows_per_s=1500)

CHANGES = {
    "add": "ALTER TABLE items ADD COLUMN extra int DEFAULT 7",
    "drop": "ALTER TABLE items DROP COLUMN pad",
    "rename": "ALTER TABLE items RENAME COLUMN pad TO padding",
}


class Updates(Writers):
    """Changes only what every version of the table has: `v` of rows that are there."""

    def _change(self, run: Callable[..., Any], dice: random.Random, v: int, shard: Shard) -> None:
        key = dice.randrange(1, self.world.rows + 1)
        run(f"UPDATE {dice.choice(TABLES)} SET v = {v} WHERE id = {key}")


@ENGINES
@pytest.mark.parametrize("change", CHANGES)
def test_backfill_while_a_column_changes(
    engine: Engine, change: str, make_world: MakeWorld, outside: SnapshotPorts
) -> None:
    world = make_world(engine, rows=4000)
    go(outside, bootstrap(world, mode=BootstrapMode.LATEST), "first")
    with Updates(world, pause=0.01):
        working = Working(outside, backfill(world, load=SLOW), "b1")
        assert_eventually(lambda: working.chunks() > 20, what="chunks were read", seconds=120)
        for shard in world.shards:
            with world.admin(shard.database) as run:
                run(CHANGES[change])
        ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    Judge(world).agree()
    # What was read before the change has the old columns; one more backfill, and all rows have the new ones.
    go(outside, backfill(world), "b2")
    for shard in world.shards:
        _same_rows(world, shard.id, "items")
    sample = outside.platform.kafka.samples([_topic(world, "items")])[_topic(world, "items")]
    found = column_schema(sample)
    assert found is not None
    assert [column.name for column in found.columns] == _columns(world, "items")


@ENGINES
def test_backfill_whose_task_starts_just_before_a_column_came(
    engine: Engine, make_world: MakeWorld, outside: SnapshotPorts
) -> None:
    """It reads its first chunk before it streams: with a column that the stream has not told of yet."""
    world = make_world(engine, count=1, rows=20_000)
    (shard,) = world.shards
    go(outside, bootstrap(world, mode=BootstrapMode.LATEST), "first")
    connect = outside.platform.connect(world.stack.cluster())
    with Updates(world, pause=0.01):
        working = Working(outside, backfill(world, tables=("items",), load=SLOW), "b1")
        assert_eventually(lambda: working.chunks() > 20, what="chunks were read", seconds=120)
        stop(connect, shard.name)
        with world.admin(shard.database) as run:
            run(CHANGES["add"])
        connect.resume(shard.name)
        ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    _same_rows(world, shard.id, "items")
    withdrawn = [text for text in working.notes.said if "streams on without its snapshot" in text]
    assert bool(withdrawn) == (engine is Engine.MARIADB), "a Postgres task reads the columns when it starts"


@ENGINES
def test_bootstrap_of_a_table_that_is_new_in_the_dataset(
    engine: Engine, make_world: MakeWorld, outside: SnapshotPorts
) -> None:
    """It was there all the time, full of rows, and not captured; one column was added meanwhile."""
    world = make_world(engine, rows=2000)
    for shard in world.shards:
        with world.admin(shard.database) as run:
            world.create(run, "more")
            world.fill(run, "more", 1, 500)
    go(outside, bootstrap(world), "first")
    before = watermarks(outside.platform.state.read(), world.name)
    for shard in world.shards:
        with world.admin(shard.database) as run:
            run("ALTER TABLE more ADD COLUMN extra int DEFAULT 7")
            world.fill(run, "more", 501, 900)
    world.dataset = replace(world.dataset, tables=(*world.dataset.tables, Table(name="more")))
    outside.platform.topology.put_dataset(world.dataset)
    with pytest.raises(BadInput, match="more is new to it"):
        go(outside, bootstrap(world, mode=BootstrapMode.LATEST), "refused")
    with Writers(world), Writers(world, tables=("more",), pause=0.02):
        working = Working(outside, bootstrap(world, tables=("more",)), "second")
        time.sleep(3)
        assert not working.notes.done, "its connectors do not capture it yet"
        _settled_pass(outside)
        ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    Judge(world).agree()
    for shard in world.shards:
        _same_rows(world, shard.id, "more")
    after = watermarks(outside.platform.state.read(), world.name)
    assert {pair: mark for pair, mark in after.items() if pair[0] != "more"} == before
    assert all(after["more", shard.id].complete for shard in world.shards)


@ENGINES
def test_backfill_while_a_table_leaves_the_dataset_and_comes_back(
    engine: Engine, make_world: MakeWorld, outside: SnapshotPorts
) -> None:
    world = make_world(engine, rows=4000)
    go(outside, bootstrap(world), "first")
    whole = world.dataset
    working = Working(
        outside, backfill(world, load=Load(max_parallel_shards=2, max_parallel_per_host=2, max_rows_per_s=250)), "b1"
    )
    assert_eventually(lambda: working.chunks() > 5, what="chunks were read", seconds=120)
    outside.platform.topology.put_dataset(replace(whole, tables=(whole.table("items"),)))
    _settled_pass(outside)
    ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    assert any("left out: notes" in text for text in working.notes.said)
    marks = watermarks(outside.platform.state.read(), world.name)
    assert {table for table, _ in marks} == {"items"}, "what is not captured is not known"
    for shard in world.shards:
        with world.admin(shard.database) as run:
            run("UPDATE notes SET v = 55 WHERE id <= 100")
    outside.platform.topology.put_dataset(whole)
    _settled_pass(outside)
    go(outside, bootstrap(world, tables=("notes",)), "again")
    Judge(world).agree()


def _settled_pass(outside: SnapshotPorts) -> None:
    """Passes until one has nothing to do (a changed configuration may go by canaries first)."""
    end = time.monotonic() + 120
    while True:
        report = reconcile(outside.platform, owner="test", wait_for_lock=60.0)
        print(report.sentence())
        assert not report.failed, report.failed
        if not report.plan.actions:
            return
        assert time.monotonic() < end, "passes do not settle"
        time.sleep(2)


def _topic(world: World, table: str) -> str:
    return table_topic(world.dataset, world.dataset.table(table))


def _columns(world: World, table: str) -> list[str]:
    with world.admin(world.shards[0].database) as run:
        rows = run(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = %s"
            " ORDER BY ordinal_position",
            table,
            "public" if world.engine is Engine.POSTGRES else world.shards[0].database,
        )
    return [str(row[0]) for row in rows]


def _row_differences(world: World, shard_id: str, table: str) -> list[str]:
    """Keys whose last event does not hold the source's row, column by column."""
    columns = _columns(world, table)
    (shard,) = (shard for shard in world.shards if shard.id == shard_id)
    with world.admin(shard.database) as run:
        source = {
            int(row[0]): dict(zip(columns, row, strict=True))
            for row in run(f"SELECT {', '.join(columns)} FROM {table}")
        }
    topic = {key: row for key, row in Judge(world).rows(table).get(shard_id, {}).items() if row is not None}
    return [
        f"{table} {key}: source {source.get(key)}, topic {topic.get(key)}"
        for key in sorted(source.keys() | topic.keys())
        if source.get(key) != topic.get(key)
    ]


def _same_rows(world: World, shard_id: str, table: str) -> None:
    end = time.monotonic() + 60
    while found := _row_differences(world, shard_id, table):
        assert time.monotonic() < end, f"{len(found)} differences: {found[:3]}"
        time.sleep(1)
