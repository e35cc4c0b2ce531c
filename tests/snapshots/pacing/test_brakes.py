"""A backfill held back by replicas that are really behind, and by a worker whose heap is really full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pymysql
import pytest

from cdc_platform.local.stack import Stack
from cdc_platform.model.topology import BootstrapMode, Engine
from cdc_platform.snapshots.pacing.brakes import BrakePolicy
from cdc_platform.snapshots.ports import SnapshotPorts
from tests.engines import EACH_BINLOG
from tests.snapshots.conftest import BackgroundRun, MakeHarness, backfill, bootstrap, go
from tests.snapshots.harness import Harness, TopicCheck, Writers
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]

QUICK = BrakePolicy(replica_lag_on=5.0, replica_lag_off=2.0, interval=1.0)
ROWS = 60_000  # so many that a pause comes in time


@EACH_BINLOG
def test_backfill_is_held_back_while_a_replica_is_behind(
    engine: Engine, make_harness: MakeHarness, outside: SnapshotPorts, stack: Stack
) -> None:
    """By a lock on the replica that its SQL thread has to wait for; in mid-read by one that was stopped."""
    role = "SLAVE" if engine is Engine.MARIADB else "REPLICA"
    harness = make_harness(engine, count=1, rows=ROWS)
    harness.shards = tuple(replace(shard, replicas=(stack.replica(engine),)) for shard in harness.shards)
    harness.put(outside.platform)
    (shard,) = harness.shards
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    check = TopicCheck(harness, since=TopicCheck(harness).ends())
    with Writers(harness, pause=0.02), _replica(stack, engine) as on_replica:
        assert_eventually(lambda: _lag(outside, harness) < 1.0, what="a replica that has the tables", seconds=120)
        on_replica(f"LOCK TABLES {shard.database}.items READ, {shard.database}.notes READ")
        assert_eventually(
            lambda: _lag(outside, harness) > QUICK.replica_lag_on, what="a replica that is behind", seconds=120
        )
        working = BackgroundRun(outside, backfill(harness), "b1", brakes=QUICK)
        assert_eventually(lambda: _behind(working, harness), what="held back by lag", seconds=120)
        working.reads_nothing(10)
        assert working.chunks() == 0
        on_replica("UNLOCK TABLES")
        assert_eventually(lambda: working.chunks() > 0, what="let go", seconds=120)
        on_replica(f"STOP {role} SQL_THREAD")
        try:
            stopped = f"a replica of {harness.leader} has stopped"
            assert_eventually(lambda: stopped in working.throttled(), what="held back by a stop", seconds=120)
            working.reads_nothing(10)
        finally:
            on_replica(f"START {role} SQL_THREAD")
        assert not working.end().failed
    check.assert_agrees(seconds=120)


def test_backfill_is_held_back_while_a_standby_is_behind(
    make_harness: MakeHarness, outside: SnapshotPorts, stack: Stack
) -> None:
    harness = make_harness(Engine.POSTGRES, count=1, rows=ROWS)
    go(outside, bootstrap(harness, mode=BootstrapMode.LATEST), "first")
    check = TopicCheck(harness, since=TopicCheck(harness).ends())
    with Writers(harness, pause=0.02), _standby(stack) as on_standby:
        on_standby("SELECT pg_wal_replay_pause()")
        try:
            assert_eventually(
                lambda: _lag(outside, harness) > QUICK.replica_lag_on, what="a standby that is behind", seconds=120
            )
            working = BackgroundRun(outside, backfill(harness), "b1", brakes=QUICK)
            assert_eventually(lambda: _behind(working, harness), what="held back by lag", seconds=120)
            working.reads_nothing(10)
            assert working.chunks() == 0
        finally:
            on_standby("SELECT pg_wal_replay_resume()")
        assert not working.end().failed
    check.assert_agrees(seconds=120)


def _lag(outside: SnapshotPorts, harness: Harness) -> float:
    return outside.sources.replica_lag(harness.dataset, harness.shards[0]) or 0.0


def _behind(working: BackgroundRun, harness: Harness) -> bool:
    return any(text.startswith(f"replicas of {harness.leader} are ") for text in working.throttled())


@contextmanager
def _replica(stack: Stack, engine: Engine) -> Iterator[Callable[[str], Any]]:
    """Runs statements on the replica, in one session."""
    login, address = stack.admin(engine), stack.replica(engine)
    connection = pymysql.connect(
        host=address.host, port=address.port, user=login.user, password=login.password, autocommit=True
    )
    try:
        with connection.cursor() as cursor:
            yield cursor.execute
    finally:
        connection.close()


@contextmanager
def _standby(stack: Stack) -> Iterator[Callable[[str], Any]]:
    """Runs statements on the Postgres standby."""
    login, address = stack.admin(Engine.POSTGRES), stack.postgres_standby
    with psycopg.connect(
        host=address.host,
        port=address.port,
        user=login.user,
        password=login.password,
        dbname="postgres",
        autocommit=True,
    ) as connection:
        yield connection.execute
