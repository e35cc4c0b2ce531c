"""What is next for a shard of a bootstrap or backfill, by what is recorded and seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cdc_platform.clients.kafka.notifications import INCREMENTAL, INITIAL, Notification
from cdc_platform.model.observed import ObservedConnector, ObservedTask
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.snapshots.connector_waves import WaveItem
from cdc_platform.snapshots.incremental_offsets import closing_at_once, snapshot_offset
from cdc_platform.snapshots.request import Request, RunKind
from cdc_platform.snapshots.run_records import Phase, Run, ShardState
from cdc_platform.snapshots.shard_progress import ShardProgress, fold
from cdc_platform.snapshots.shard_steps import (
    Adopt,
    Begin,
    Fail,
    Finish,
    GiveUp,
    Reset,
    ShardView,
    Step,
    Timeouts,
    Wait,
    Withdraw,
    next_step,
    running_signal,
)
from cdc_platform.testing import FakeConnect
from tests.defs.harness import dataset, shard

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
TIMEOUTS = Timeouts()
TABLES = ("p.pins", "p.boards")
STREAM = {"file": "b.1", "pos": 7, "gtids": "0-1-50"}
SIGNAL = "r1/pins.00000#1"


def connector(mode: str = "no_data", state: str = "RUNNING", trace: str | None = None) -> ObservedConnector:
    task = ObservedTask(id=0, state="FAILED" if trace else "RUNNING", worker="w0:8083", trace=trace)
    return ObservedConnector(
        name="pins.00000", state=state, worker="w0:8083", config={"snapshot.mode": mode}, tasks=(task,)
    )


def state(phase: Phase, *, ago: float = 1.0, **more: Any) -> ShardState:
    at = NOW - timedelta(seconds=ago)
    return ShardState(phase=phase, since=at, began=at, **more)


def view(**more: Any) -> ShardView:
    base = ShardView(
        run="r1",
        shard="pins.00000",
        engine=Engine.MARIADB,
        kind=RunKind.BOOTSTRAP,
        mode=BootstrapMode.INCREMENTAL,
        state=None,
        tables=TABLES,
        connector=connector(),
        offset=STREAM,
        progress=ShardProgress(),
    )
    return replace(base, **more)


def said(kind: str, *, ago: float = 0.0, of: str = INCREMENTAL, id: str = SIGNAL, **more: Any) -> Notification:
    return Notification(id=id, snapshot=of, type=kind, shard="pins.00000", at=NOW - timedelta(seconds=ago), **more)


def heard(*notifications: Notification) -> ShardProgress:
    progress = ShardProgress()
    for one in notifications:
        progress = fold(progress, one, chunk_rows=100)
    return progress


def complete(of: str = INCREMENTAL, *tables: str, ago: float = 0.0, id: str = SIGNAL) -> tuple[Notification, ...]:
    return tuple(
        said("TABLE_SCAN_COMPLETED", of=of, ago=ago, id=id, table=table, status="SUCCEEDED", rows=10)
        for table in tables or TABLES
    )


def step(**more: Any) -> Step:
    return next_step(view(**more), NOW, TIMEOUTS)


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"connector": None}, Reset()),
        ({}, Adopt()),
        ({"again": True}, Reset()),
        ({"mode": BootstrapMode.POSITION}, Reset()),
        ({"mode": BootstrapMode.LATEST}, Adopt()),
        # A stream that began with an initial snapshot goes on: all rows come in chunks.
        ({"connector": connector("initial")}, Adopt()),
        ({"connector": connector("initial"), "mode": BootstrapMode.LATEST}, Reset()),
        ({"connector": connector("no_data"), "mode": BootstrapMode.SNAPSHOT}, Reset()),
        ({"connector": connector("initial"), "mode": BootstrapMode.SNAPSHOT}, Adopt()),
        ({"offset": {}}, Wait("waiting for its first position")),
        ({"offset": {**STREAM, "snapshot": True}}, Wait("waiting for its first position")),
        # A chunk's window was open as it was committed: it streams.
        ({"offset": {**STREAM, "snapshot": "INCREMENTAL"}}, Adopt()),
        ({"uncaptured": ("boards",)}, Wait("its connector does not capture boards")),
        # A reset that was begun is brought to its end, whatever is seen.
        ({"state": state(Phase.RESETTING, reset=True)}, Reset()),
    ],
)
def test_bootstrap_begins_by_what_is_there(more: dict[str, Any], wanted: Step) -> None:
    assert step(**more) == wanted


def test_bootstrap_by_snapshot_waits_for_each_table_and_then_adopts() -> None:
    starting: dict[str, Any] = {"mode": BootstrapMode.SNAPSHOT, "state": state(Phase.STARTING, reset=True)}
    assert step(**starting) == Wait("its snapshot is under way")
    assert step(**starting, progress=heard(*complete(INITIAL, "p.pins"))) == Wait("its snapshot is under way")
    assert step(**starting, progress=heard(*complete(INITIAL))) == Adopt()
    # Over without a word about one of them: that one is read in chunks.
    assert step(**starting, progress=heard(*complete(INITIAL, "p.pins"), said("COMPLETED", of=INITIAL))) == Adopt()


@pytest.mark.parametrize("kind", list(RunKind))
def test_backfill_and_bootstrap_ask_once_and_wait(kind: RunKind) -> None:
    reading = {"kind": kind, "state": state(Phase.READING)}
    assert step(**reading) == Begin(1, TABLES)
    asked = {"kind": kind, "state": state(Phase.READING, attempt=1)}
    running = {**STREAM, "incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": SIGNAL}
    assert step(**asked, offset=running) == Wait("reading")
    assert step(**asked, progress=heard(*complete()), offset=running) == Wait("its last rows are being committed")
    assert step(**asked, progress=heard(*complete())) == Finish()


def test_backfill_that_read_all_before_it_was_recorded_is_not_asked_for_again() -> None:
    """Killed between the change of the offset and the record of it; meanwhile all was read."""
    assert step(kind=RunKind.BACKFILL, state=state(Phase.READING), progress=heard(*complete())) == Finish()


def test_backfill_of_a_lost_snapshot_asks_for_what_is_left() -> None:
    lost = {"kind": RunKind.BACKFILL, "state": state(Phase.READING, attempt=1, ago=300.0)}
    assert step(**lost) == Begin(2, TABLES)
    assert step(**lost, progress=heard(*complete(INCREMENTAL, "p.pins", ago=200))) == Begin(2, ("p.boards",))


def test_a_table_that_cannot_be_read_keeps_no_other() -> None:
    def after(asked: tuple[str, ...], tries: int, *done: str, **more: Any) -> Step:
        reading = state(Phase.READING, attempt=7, ago=300.0, asked=asked, tries=tries, **more)
        heard_of = complete(INCREMENTAL, *done, ago=200) if done else ()
        return step(kind=RunKind.BACKFILL, state=reading, progress=heard(*heard_of))

    pins, boards = TABLES
    assert after(TABLES, 1) == Begin(8, TABLES), "together twice"
    assert after(TABLES, 2) == Begin(8, (pins,)), "then alone"
    assert after((pins,), 1, pins) == Begin(8, (boards,))
    assert after((pins,), 4) == Begin(8, (pins,))
    assert after((pins,), 5) == GiveUp({pins: "its snapshot was lost, 5 times"})
    assert after((pins,), 2, unread={"other": "x"}) == GiveUp({pins: "its snapshot was lost, 2 times"})


def test_attempts_that_end_early_leave_the_lock_to_others() -> None:
    ended = [said("TABLE_SCAN_COMPLETED", table="p.pins", status="SQL_EXCEPTION"), said("COMPLETED")]

    def tried(tries: int, ago: float) -> Step:
        reading = state(Phase.READING, attempt=1, ago=ago, asked=TABLES[:1], tries=tries)
        return step(kind=RunKind.BACKFILL, tables=TABLES[:1], state=reading, progress=heard(*ended))

    assert tried(1, 1.0) == Begin(2, TABLES[:1])
    assert tried(2, 1.0) == Wait("its snapshot ended early: p.pins (SQL_EXCEPTION)")


def test_backfill_waits_for_another_snapshot_to_end() -> None:
    other = {**STREAM, "incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": "x"}
    assert step(kind=RunKind.BACKFILL, state=state(Phase.READING), offset=other) == Wait("waiting for x to end")
    late = state(Phase.READING, ago=3600.0)
    assert step(kind=RunKind.BACKFILL, state=late, offset=other) == Fail("another incremental snapshot runs: x")


def test_backfill_fails_with_the_reason() -> None:
    def failing(**more: Any) -> Step:
        return step(kind=RunKind.BACKFILL, state=state(Phase.READING, attempt=1, ago=3600.0), **more)

    no_key = said("TABLE_SCAN_COMPLETED", table="p.pins", status="NO_PRIMARY_KEY")
    assert failing(progress=heard(no_key)) == GiveUp({"p.pins": "it cannot be read in chunks (NO_PRIMARY_KEY)"})
    assert failing(progress=heard(said("ABORTED"))) == Fail("its snapshot was stopped by hand")
    dead = connector(trace="java.lang.OutOfMemoryError: Java heap space\n\tat x")
    assert failing(connector=dead) == Fail("its task failed: java.lang.OutOfMemoryError: Java heap space")
    assert failing(uncaptured=("boards",)) == Fail("its connector does not capture boards")
    running = {**STREAM, "incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": SIGNAL}
    assert failing(offset=running) == Fail("no progress for 30 min")


def test_backfill_that_kills_its_task_lets_the_stream_go_on_and_is_asked_for_again_later() -> None:
    trace = (
        "org.apache.kafka.connect.errors.ConnectException: An exception occurred in the change event producer.\n"
        "Caused by: io.debezium.DebeziumException: Database error while executing incremental snapshot for table 'x'\n"
        "Caused by: java.lang.IllegalArgumentException: Column 'extra' not found in result set 'id, extra'"
    )
    running = {**STREAM, "incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": SIGNAL}
    reading = state(Phase.READING, attempt=1)
    killed = step(kind=RunKind.BACKFILL, state=reading, offset=running, connector=connector(trace=trace))
    assert isinstance(killed, Withdraw)
    assert "Column 'extra' not found" in killed.reason
    without = replace(reading, error=killed.reason)
    assert step(kind=RunKind.BACKFILL, state=without, offset=dict(STREAM)) == Wait(killed.reason)
    soon = replace(without, since=NOW - TIMEOUTS.stalled)
    assert step(kind=RunKind.BACKFILL, state=soon, offset=None) == Wait(killed.reason), "there is nothing to go on with"
    later = replace(without, since=NOW - timedelta(seconds=200))
    assert step(kind=RunKind.BACKFILL, state=later, offset=dict(STREAM)) == Begin(2, TABLES)
    long_ago = NOW - timedelta(seconds=500)
    last = replace(later, since=long_ago, attempt=9, asked=TABLES[1:], tries=TIMEOUTS.attempts)
    given_up = step(kind=RunKind.BACKFILL, state=last, offset=dict(STREAM))
    assert given_up == GiveUp({"p.boards": f"{killed.reason}, 5 times"})


def test_backfill_that_is_throttled_is_never_silent() -> None:
    throttled = {
        "kind": RunKind.BACKFILL,
        "state": state(Phase.READING, attempt=1, ago=36_000.0),
        "throttled": "rows a second",
    }
    running = {**STREAM, "incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": SIGNAL}
    assert step(**throttled, offset=running) == Wait("rows a second")
    assert step(kind=RunKind.BACKFILL, state=state(Phase.READING), throttled="worker w0 is short of heap") == Wait(
        "worker w0 is short of heap"
    )


def test_backfill_begins_again_where_it_stands_still() -> None:
    lsn = {"lsn": 5, "lsn_commit": 5, "txId": 700}
    idle: dict[str, Any] = {"kind": RunKind.BACKFILL, "engine": Engine.POSTGRES}
    assert step(**idle, state=state(Phase.READING), offset={"lsn": 5}) == Begin(1, TABLES)
    running = {**lsn, "incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": SIGNAL}
    assert step(**idle, state=state(Phase.READING, attempt=1, ago=30.0), offset=running) == Begin(1, TABLES)
    binlog = {**STREAM, "incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": SIGNAL}
    still = {"kind": RunKind.BACKFILL, "state": state(Phase.READING, attempt=1, ago=30.0), "offset": binlog}
    assert step(**still) == Begin(1, TABLES), "binlogs too"
    waits = state(Phase.READING, attempt=1, ago=30.0)
    assert step(**idle, state=waits, offset=running, nudges=1) == Wait("reading"), "twice as patient the next time"


def test_backfill_of_postgres_begins_with_a_transaction_that_is_older_than_all_that_are_open() -> None:
    stored = {"lsn": 8, "lsn_proc": 8, "lsn_commit": 6, "txId": 700, "ts_usec": 1, "messageType": "COMMIT"}
    assert closing_at_once(stored, 650) == {"lsn": 6, "txId": 650, "ts_usec": 1}
    assert closing_at_once(stored, 720) == {"lsn": 6, "txId": 700, "ts_usec": 1}
    assert closing_at_once({"lsn": 5}, 650) == {"lsn": 5, "txId": 650}, "without an id the task would die"
    snapshot = {"incremental_snapshot_collections": "[]x", "incremental_snapshot_correlation_id": SIGNAL}
    once = closing_at_once({**stored, **snapshot}, 650)
    assert running_signal(once) == SIGNAL
    assert closing_at_once(once, 660) == once, "written once"


def test_what_is_over_stays_over() -> None:
    assert step(state=state(Phase.DONE)) == Wait("it is done")
    assert step(state=state(Phase.FAILED), again=True) == Wait("it failed")


def test_an_initial_snapshot_that_begins_again_forgets_what_an_older_one_has_read() -> None:
    older = complete(INITIAL, ago=60, id="a")
    assert not heard(*older, said("STARTED", of=INITIAL, id="b")).complete(TABLES)
    # Heard of out of order: what it has read since stays.
    late = said("STARTED", of=INITIAL, ago=90, id="b")
    assert heard(*older, said("COMPLETED", of=INITIAL, ago=50, id="c"), late).complete(TABLES)


def test_rows_and_chunks_are_counted_over_restarts_of_a_task() -> None:
    first = [said("IN_PROGRESS", ago=9 - n, table="p.pins", last_key=str(n * 100), max_key="1000") for n in range(4)]
    progress = heard(*first)
    assert (progress.rows, progress.chunks) == (300, 4)
    assert progress.fraction(("p.pins",)) == pytest.approx(0.3)
    ended = fold(progress, said("TABLE_SCAN_COMPLETED", table="p.pins", status="SUCCEEDED", rows=120), chunk_rows=100)
    assert (ended.rows, ended.tables["p.pins"].scanned) == (300, 120), "a restarted task counts anew"
    assert ended.complete(("p.pins",))
    again = fold(ended, said("IN_PROGRESS", id="r1/pins.00000#2", table="p.boards"), chunk_rows=100)
    assert again.complete(("p.pins",)), "what an attempt has read to its end is not read again"


def test_a_skipped_table_is_not_complete_whatever_the_snapshot_says_at_its_end() -> None:
    skipped = said("TABLE_SCAN_COMPLETED", table="p.boards", status="SQL_EXCEPTION")
    progress = heard(*complete(INCREMENTAL, "p.pins"), skipped, said("COMPLETED"))
    reading = state(Phase.READING, attempt=1)
    assert step(kind=RunKind.BACKFILL, state=reading, progress=progress) == Begin(2, ("p.boards",))


def test_a_snapshot_that_ended_just_before_it_was_nudged_is_not_asked_for_again() -> None:
    run = Run(
        id="r1",
        request=Request(kind=RunKind.BACKFILL, dataset="pins"),
        mode=None,
        tables=("pins",),
        shards=("00000",),
        created=NOW,
    )
    item = WaveItem(
        dataset=dataset("pins"),
        shard=shard("pins", 0),
        connect=FakeConnect(),
        config={},
        state=state(Phase.READING, attempt=1),
        tables=("p.pins",),
    )
    running = snapshot_offset(item, run, dict(STREAM))
    assert running_signal(running) == SIGNAL
    assert snapshot_offset(item, run, running) == running, "asked once"
    marked = {**STREAM, "snapshot": "INCREMENTAL"}
    assert snapshot_offset(item, run, marked) == running, "a task keeps the mark of a window that is gone for ever"
    nudged = replace(item, nudged=True)
    assert snapshot_offset(nudged, run, running) == running
    assert snapshot_offset(nudged, run, dict(STREAM)) == STREAM
