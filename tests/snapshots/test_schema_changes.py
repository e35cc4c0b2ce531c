"""Columns and tables that come, go and change their name while shards are bootstrapped and streamed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cdc_platform.clients.secrets import resolve
from cdc_platform.connectors.identity import table_topic
from cdc_platform.defs.sampled_columns import column_schema
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import BootstrapMode, Engine, Shard, Table
from cdc_platform.reconciler.run_pass import reconcile
from cdc_platform.snapshots.connector_waves import stop
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.request import Load
from cdc_platform.snapshots.run_records import watermarks
from tests.engines import EACH_ENGINE
from tests.snapshots.conftest import BackgroundRun, MakeHarness, backfill, bootstrap, go
from tests.snapshots.harness import TABLES, Harness, TopicCheck, Writers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

SLOW = Load(max_parallel_shards=2, max_parallel_per_host=2, max_rows_per_s=1500)

CHANGES = {
    "add": "ALTER TABLE items ADD COLUMN extra int DEFAULT 7",
    "drop": "ALTER TABLE items DROP COLUMN pad",
    "rename": "ALTER TABLE items RENAME COLUMN pad TO padding",
}


class Updates(Writers):
    """Changes only what every version of the table has: `v` of rows that are there."""

    def _change(self, run: Callable[..., Any], dice: random.Random, v: int, shard: Shard) -> None:
        key = dice.randrange(1, self.harness.rows + 1)
        run(f"UPDATE {dice.choice(TABLES)} SET v = {v} WHERE id = {key}")


@EACH_ENGINE
@pytest.mark.parametrize("change", CHANGES)
def test_backfill_while_a_column_changes(
    engine: Engine, change: str, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, rows=4000)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    with Updates(harness, pause=0.01):
        working = BackgroundRun(outside, backfill(harness, load=SLOW), "b1")
        assert_eventually(lambda: working.chunks() > 20, what="chunks were read", seconds=120)
        for shard in harness.shards:
            with harness.admin(shard.database) as run:
                run(CHANGES[change])
        ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    TopicCheck(harness).assert_agrees()
    # What was read before the change has the old columns; one more backfill, and all rows have the new ones.
    go(outside, backfill(harness), "b2")
    for shard in harness.shards:
        _same_rows(harness, shard.id, "items")
    sample = outside.platform.kafka.samples([_topic(harness, "items")])[_topic(harness, "items")]
    found = column_schema(sample)
    assert found is not None
    assert [column.name for column in found.columns] == _columns(harness, "items")


@EACH_ENGINE
def test_backfill_whose_task_starts_just_before_a_column_came(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """It reads its first chunk before it streams: with a column that the stream has not told of yet."""
    harness = make_harness(engine, count=1, rows=20_000)
    (shard,) = harness.shards
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    connect = outside.platform.connect(harness.stack.cluster())
    with Updates(harness, pause=0.01):
        working = BackgroundRun(outside, backfill(harness, tables=("items",), load=SLOW), "b1")
        assert_eventually(lambda: working.chunks() > 20, what="chunks were read", seconds=120)
        stop(connect, shard.name)
        with harness.admin(shard.database) as run:
            run(CHANGES["add"])
        connect.resume(shard.name)
        ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    _same_rows(harness, shard.id, "items")
    withdrawn = [text for text in working.notes.said if "streams on without its snapshot" in text]
    assert bool(withdrawn) == (engine is Engine.MARIADB), "the others read the columns when the task starts"


@EACH_ENGINE
def test_bootstrap_of_a_table_that_is_new_in_the_dataset(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """It was there all the time, full of rows, and not captured; one column was added meanwhile."""
    harness = make_harness(engine, rows=2000)
    for shard in harness.shards:
        with harness.admin(shard.database) as run:
            harness.create(run, "more")
            harness.fill(run, "more", 1, 500)
    go(outside, bootstrap(harness), "first")
    before = watermarks(outside.platform.state.read(), harness.name)
    for shard in harness.shards:
        with harness.admin(shard.database) as run:
            run("ALTER TABLE more ADD COLUMN extra int DEFAULT 7")
            harness.fill(run, "more", 501, 900)
    harness.dataset = replace(harness.dataset, tables=(*harness.dataset.tables, Table(name="more")))
    outside.platform.topology.put_dataset(harness.dataset)
    with pytest.raises(BadInput, match="more is new to it"):
        go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "refused")
    with Writers(harness), Writers(harness, tables=("more",), pause=0.02):
        working = BackgroundRun(outside, bootstrap(harness, tables=("more",)), "second")
        time.sleep(3)
        assert not working.notes.done, "its connectors do not capture it yet"
        _settled_pass(outside)
        ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    TopicCheck(harness).assert_agrees()
    for shard in harness.shards:
        _same_rows(harness, shard.id, "more")
    after = watermarks(outside.platform.state.read(), harness.name)
    assert {pair: mark for pair, mark in after.items() if pair[0] != "more"} == before
    assert all(after["more", shard.id].complete for shard in harness.shards)


@EACH_ENGINE
def test_backfill_while_a_table_leaves_the_dataset_and_comes_back(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, rows=4000)
    go(outside, bootstrap(harness), "first")
    whole = harness.dataset
    working = BackgroundRun(
        outside, backfill(harness, load=Load(max_parallel_shards=2, max_parallel_per_host=2, max_rows_per_s=250)), "b1"
    )
    assert_eventually(lambda: working.chunks() > 5, what="chunks were read", seconds=120)
    outside.platform.topology.put_dataset(replace(whole, tables=(whole.table("items"),)))
    _settled_pass(outside)
    ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    assert any("left out: notes" in text for text in working.notes.said)
    marks = watermarks(outside.platform.state.read(), harness.name)
    assert {table for table, _ in marks} == {"items"}, "what is not captured is not known"
    for shard in harness.shards:
        with harness.admin(shard.database) as run:
            run("UPDATE notes SET v = 55 WHERE id <= 100")
    outside.platform.topology.put_dataset(whole)
    _settled_pass(outside)
    go(outside, bootstrap(harness, tables=("notes",)), "again")
    TopicCheck(harness).assert_agrees()


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


def _topic(harness: Harness, table: str) -> str:
    return table_topic(harness.dataset, harness.dataset.table(table))


def _columns(harness: Harness, table: str) -> list[str]:
    with harness.admin(harness.shards[0].database) as run:
        rows = run(
            "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = %s"
            " ORDER BY ordinal_position",
            table,
            "public" if harness.engine is Engine.POSTGRES else harness.shards[0].database,
        )
    return [str(row[0]) for row in rows]


def _row_differences(harness: Harness, shard_id: str, table: str) -> list[str]:
    """Keys whose last event does not hold the source's row, column by column."""
    columns = _columns(harness, table)
    (shard,) = (shard for shard in harness.shards if shard.id == shard_id)
    with harness.admin(shard.database) as run:
        source = {
            int(row[0]): dict(zip(columns, row, strict=True))
            for row in run(f"SELECT {', '.join(columns)} FROM {table}")
        }
    topic = {key: row for key, row in TopicCheck(harness).rows(table).get(shard_id, {}).items() if row is not None}
    return [
        f"{table} {key}: source {source.get(key)}, topic {topic.get(key)}"
        for key in sorted(source.keys() | topic.keys())
        if source.get(key) != topic.get(key)
    ]


def _same_rows(harness: Harness, shard_id: str, table: str) -> None:
    end = time.monotonic() + 60
    while found := _row_differences(harness, shard_id, table):
        assert time.monotonic() < end, f"{len(found)} differences: {found[:3]}"
        time.sleep(1)


# Seconds that the application's own DDL waits at most, be a chunk in which state it may. A chunk is open for well under
# one; a busy worker stretches that. A transaction that is left open outlasts any bound.
WAITS = 40


@pytest.mark.parametrize("engine", [Engine.MARIADB, Engine.POSTGRES], ids=str)
@pytest.mark.field("MDL-HELD", Engine.MARIADB, Engine.POSTGRES)
def test_ddl_of_the_application_waits_for_no_chunk_that_failed_was_paused_or_lost_its_task(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, count=1, rows=5_000)
    (shard,) = harness.shards
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    connect = outside.platform.connect(harness.stack.cluster())
    with harness.admin(shard.database) as run:
        run(f"SET lock_timeout = '{WAITS}s'" if engine is Engine.POSTGRES else f"SET lock_wait_timeout = {WAITS}")

        def alter(count: int) -> None:
            """Statements that need the table for themselves: each fails when it has to wait for too long."""
            for _ in range(count):
                run("ALTER TABLE items ADD COLUMN more int")
                run("SELECT count(more) FROM items")
                run("ALTER TABLE items DROP COLUMN more")
                assert _oldest_transaction(harness, shard) < WAITS
                time.sleep(1)

        working = BackgroundRun(outside, backfill(harness, tables=("items",), load=SLOW), "b1")
        assert_eventually(lambda: working.chunks() > 20, what="chunks were read", seconds=120)
        run("ALTER TABLE items DROP COLUMN pad")
        alter(5)
        connect.restart_task(shard.name, 0)
        alter(3)
        connect.stop(shard.name)
        alter(2)
        connect.resume(shard.name)
        run("ALTER TABLE items ADD COLUMN pad int DEFAULT 7")
        alter(1)
    ended = working.end()
    assert not ended.failed, [done.error for done in working.notes.done]
    source = harness.table(shard, "items")
    assert_eventually(lambda: TopicCheck(harness).fold("items")[shard.id] == source, "the topic has the table", 60)


def _oldest_transaction(harness: Harness, shard: Shard) -> float:
    """Seconds since the oldest open transaction of the connector's user began."""
    user = str(resolve(harness.dataset.credentials.user))
    with harness.admin(shard.database) as run:
        if harness.engine is Engine.POSTGRES:
            ((age,),) = run(
                "SELECT max(extract(epoch FROM clock_timestamp() - xact_start))::float8 FROM pg_stat_activity"
                " WHERE usename = %s AND datname = current_database() AND backend_type = 'client backend'",
                user,
            )
        else:
            ((age,),) = run(
                "SELECT MAX(TIMESTAMPDIFF(SECOND, t.trx_started, NOW())) FROM information_schema.INNODB_TRX t"
                " JOIN information_schema.PROCESSLIST p ON p.ID = t.trx_mysql_thread_id"
                " WHERE p.USER = %s",
                user,
            )
    return float(age or 0)
