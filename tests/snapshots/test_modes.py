"""Each bootstrap mode on every engine, while rows are written."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from cdc_platform.clients.secrets import resolve
from cdc_platform.connectors.identity import Identity, identity
from cdc_platform.errors import BadInput
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.reconciler.run_pass import plan_pass
from cdc_platform.snapshots.lost_positions import for_lost_shards, lost_shards
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.run_records import watermarks
from tests.engines import EACH_BINLOG, EACH_ENGINE
from tests.snapshots.conftest import MakeHarness, backfill, bootstrap, go
from tests.snapshots.harness import Harness, TopicCheck, Writers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@EACH_ENGINE
@pytest.mark.parametrize("mode", [BootstrapMode.SNAPSHOT, BootstrapMode.INCREMENTAL], ids=str)
def test_bootstrap_of_all_rows_under_live_writes(
    engine: Engine, mode: BootstrapMode, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine)
    with Writers(harness) as writers:
        run, notes = go(outside, bootstrap(harness, mode=mode))
    assert writers.writes > 100
    TopicCheck(harness).assert_agrees()
    assert [done.error for done in notes.done] == [None, None]
    marks = watermarks(outside.platform.state.read(), harness.name)
    assert len(marks) == 4
    assert all(mark.complete and mark.position and mark.mode is mode for mark in marks.values())
    assert run.finished and not run.failed


@EACH_ENGINE
def test_bootstrap_of_idle_shards_does_not_stand_still(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, count=3, rows=6000)
    began = time.monotonic()
    go(outside, bootstrap(harness, mode=BootstrapMode.INCREMENTAL))
    assert time.monotonic() - began < 90
    TopicCheck(harness).assert_agrees()


@EACH_ENGINE
def test_bootstrap_from_latest_brings_what_changes_from_then_on(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine)
    with Writers(harness) as writers:
        go(outside, bootstrap(harness, mode=BootstrapMode.LATEST))
        writers.changed.clear()
        at = writers.writes
        assert_eventually(lambda: writers.writes > at + 300, what="300 writes")
    TopicCheck(harness).assert_agrees(only=writers.changed)
    rows = TopicCheck(harness).fold("items")
    assert all(len(rows[shard.id]) < 3000 for shard in harness.shards), "older rows are out of scope"
    marks = watermarks(outside.platform.state.read(), harness.name)
    assert {mark.complete for mark in marks.values()} == {None}
    # A backfill of all rows makes the tables whole.
    go(outside, backfill(harness), "b1")
    TopicCheck(harness).assert_agrees()
    marks = watermarks(outside.platform.state.read(), harness.name)
    assert all(mark.complete and mark.backfilled == "b1" for mark in marks.values())


@EACH_BINLOG
def test_bootstrap_from_a_position_of_a_binlog(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine)
    positions = {shard.id: harness.position(shard) for shard in harness.shards}
    with Writers(harness) as writers:
        assert_eventually(lambda: writers.writes > 300, what="300 writes")
        wanted = bootstrap(harness, mode=BootstrapMode.POSITION, positions=positions)
        _, refused = go(outside, wanted, "r0")
        assert all("schema history" in (done.error or "") for done in refused.done)
        go(outside, bootstrap(harness, mode=BootstrapMode.POSITION, positions=positions, schema_unchanged=True))
    TopicCheck(harness).assert_agrees(only=writers.changed)
    connect = outside.platform.connect(harness.stack.cluster())
    modes = {connect.connector(shard.name).config["snapshot.mode"] for shard in harness.shards}
    assert modes == {"no_data"}, "recovery is for the first start only"


def test_bootstrap_from_an_lsn_that_the_slot_still_holds(make_harness: MakeHarness, outside: SnapshotPorts) -> None:
    harness = make_harness(Engine.POSTGRES)
    user = str(resolve(harness.dataset.credentials.user))
    for shard in harness.shards:
        own = identity(harness.settings, harness.dataset, shard)
        with harness.admin(shard.database) as run:
            run(f"CREATE PUBLICATION {own.publication} FOR TABLE items, notes")
            run(f"ALTER PUBLICATION {own.publication} OWNER TO {user}")
    for shard in harness.shards:
        with harness.admin(shard.database) as run:
            _make_slot(run, identity(harness.settings, harness.dataset, shard))
    positions = {shard.id: harness.position(shard) for shard in harness.shards}
    with Writers(harness) as writers:
        assert_eventually(lambda: writers.writes > 300, what="300 writes")
        wanted = bootstrap(harness, mode=BootstrapMode.POSITION, positions=positions, schema_unchanged=True)
        _, notes = go(outside, wanted)
    assert [done.error for done in notes.done] == [None, None]
    TopicCheck(harness).assert_agrees(only=writers.changed)


def _make_slot(run: Callable[..., list[Any]], own: Identity) -> None:
    """A slot that is younger than its publication for certain: not held back by another slot of the server."""

    def made() -> bool:
        run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)", own.slot)
        older = "SELECT age(p.xmin) >= age(s.catalog_xmin) FROM pg_publication p, pg_replication_slots s"
        if run(f"{older} WHERE p.pubname = %s AND s.slot_name = %s", own.publication, own.slot)[0][0]:
            return True
        run("SELECT pg_drop_replication_slot(%s)", own.slot)
        time.sleep(1)
        return False

    assert_eventually(made, what="a slot younger than its publication", seconds=90)


def test_bootstrap_from_an_lsn_before_the_publication_is_refused(
    make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """What was written before the publication would be left out without a word."""
    harness = make_harness(Engine.POSTGRES, count=1)
    shard = harness.shards[0]
    own = identity(harness.settings, harness.dataset, shard)
    position = harness.position(shard)
    _, notes = go(outside, bootstrap(harness, mode=BootstrapMode.POSITION, positions={shard.id: position}), "r0")
    assert "no slot" in (notes.done[0].error or "")
    with harness.admin(shard.database) as run:
        run("SELECT pg_create_logical_replication_slot(%s, 'pgoutput', false, false, true)", own.slot)
        run("UPDATE items SET v = 1 WHERE id = 1")
        run(f"CREATE PUBLICATION {own.publication} FOR TABLE items, notes")
    position = harness.position(shard)
    _, notes = go(outside, bootstrap(harness, mode=BootstrapMode.POSITION, positions={shard.id: position}), "r1")
    assert "may be younger" in (notes.done[0].error or "")
    assert shard.name not in outside.platform.connect(harness.stack.cluster()).connectors()


@EACH_ENGINE
@pytest.mark.parametrize("mode", [BootstrapMode.SNAPSHOT, BootstrapMode.INCREMENTAL], ids=str)
def test_bootstrap_again_of_running_shards(
    engine: Engine, mode: BootstrapMode, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine)
    with Writers(harness):
        go(outside, bootstrap(harness, mode=BootstrapMode.INCREMENTAL), "first")
        with pytest.raises(BadInput, match="bootstrapped already"):
            go(outside, bootstrap(harness, mode=mode), "second")
        _, notes = go(outside, bootstrap(harness, mode=mode, again=True), "third")
    assert all(done.hole is not None for done in notes.done), "the time between stop and start was in no stream"
    rows = {table: TopicCheck(harness).fold(table) for table in ("items", "notes")}
    # Rows deleted in the hole stay until a repair; all others assert_agrees.
    for difference in TopicCheck(harness).differences():
        assert "source None" in difference, difference
    assert rows


@EACH_BINLOG
def test_bootstrap_back_at_a_position_that_the_schema_history_reaches(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, count=1)
    shard = harness.shards[0]
    go(outside, bootstrap(harness, mode=BootstrapMode.INCREMENTAL), "first")
    position = harness.position(shard)
    with Writers(harness) as writers:
        assert_eventually(lambda: writers.writes > 200, what="200 writes")
    with harness.admin(shard.database) as run:
        run("ALTER TABLE items ADD COLUMN extra int NULL FIRST")
        run("UPDATE items SET v = 77 WHERE id = 5")
    TopicCheck(harness).assert_agrees()
    _, notes = go(
        outside, bootstrap(harness, mode=BootstrapMode.POSITION, positions={shard.id: position}, again=True), "second"
    )
    assert notes.done[0].error is None
    TopicCheck(harness).assert_agrees()
    connect = outside.platform.connect(harness.stack.cluster())
    assert_eventually(lambda: connect.connector(shard.name).running, what="running")


def _purged(run: Callable[..., list[Any]]) -> bool:
    """Purges; a file that the replica still reads stays."""
    run("FLUSH BINARY LOGS")
    run(f"PURGE BINARY LOGS TO '{run('SHOW BINARY LOGS')[-1][0]}'")
    return len(run("SHOW BINARY LOGS")) == 1


def _lose(harness: Harness, outside: SnapshotPorts) -> None:
    """Stop capturing, write and delete, and take the log away."""
    connect = outside.platform.connect(harness.stack.cluster())
    for shard in harness.shards:
        connect.stop(shard.name)
        assert_eventually(lambda name=shard.name: not connect.connector(name).tasks, what="stopped")  # type: ignore[misc]
        with harness.admin(shard.database) as run:
            run("UPDATE items SET v = 500 WHERE id <= 50")
            run("DELETE FROM items WHERE id = 60")
            if harness.engine.reads_binlog:
                run("FLUSH BINARY LOGS")
                assert_eventually(lambda r=run: _purged(r), what="binlogs purged")  # type: ignore[misc]
                run("UPDATE items SET v = 501 WHERE id = 51")
            else:
                slot = identity(harness.settings, harness.dataset, shard).slot
                assert_eventually(
                    lambda r=run, s=slot: (
                        not r(  # type: ignore[misc]
                            "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", s
                        )
                    ),
                    what="slot free",
                )
                run("SELECT pg_drop_replication_slot(%s)", slot)
        connect.resume(shard.name)
    assert_eventually(
        lambda: all(
            any(task.state == "FAILED" for task in connect.connector(shard.name).tasks) for shard in harness.shards
        ),
        what="tasks failed",
        seconds=90,
    )


@EACH_ENGINE
def test_bootstrap_of_lost_shards_is_one_command_that_says_what_may_be_lost(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(engine, count=2)
    go(outside, bootstrap(harness, mode=BootstrapMode.INCREMENTAL), "first")
    _lose(harness, outside)
    picture = plan_pass(outside.platform)[0]
    assert set(lost_shards(picture, harness.name)) == {"00000", "00001"}
    _, notes = go(outside, for_lost_shards(picture, bootstrap(harness)), "second")
    for done in notes.done:
        assert done.error is None
        assert done.hole is not None and done.hole.since and done.hole.until
        assert "no stream has seen" in done.sentence()
    assert TopicCheck(harness).differences() == [f"{s.name} items 60: source None, topic 0" for s in harness.shards]
    with pytest.raises(BadInput, match="no shard"):
        for_lost_shards(plan_pass(outside.platform)[0], bootstrap(harness))
