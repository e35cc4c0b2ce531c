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
from cdc_platform.snapshots.brakes import BrakePolicy
from cdc_platform.snapshots.outside import Outside
from cdc_platform.snapshots.request import Load
from cdc_platform.topology import Address, BootstrapMode, Engine
from tests.clients.waiting import wait_until
from tests.snapshots.conftest import MakeWorld, Working, backfill, bootstrap, go
from tests.snapshots.live import Judge, Writers

pytestmark = [pytest.mark.stack, pytest.mark.slow]

QUICK = BrakePolicy(replica_lag_on=5.0, replica_lag_off=2.0, interval=1.0)
SLOW = Load(max_parallel_shards=1, max_rows_per_s=400)


def test_backfill_is_held_back_while_a_replica_is_behind(make_world: MakeWorld, outside: Outside, stack: Stack) -> None:
    """MariaDB: by a lock on the replica that its SQL thread has to wait for, and by one that was stopped."""
    world = make_world(Engine.MARIADB, count=1, rows=8000)
    world.shards = tuple(replace(shard, replicas=(stack.mariadb_replica,)) for shard in world.shards)
    world.put(outside.platform)
    go(outside, bootstrap(world, mode=BootstrapMode.LATEST), "first")
    judge = Judge(world, since=Judge(world).ends())
    with Writers(world, pause=0.02), _replica(stack) as on_replica:
        working = Working(outside, backfill(world, load=SLOW), "b1", brakes=QUICK)
        wait_until(lambda: working.chunks() > 5, what="chunks were read", seconds=120)
        on_replica(f"LOCK TABLES {world.shards[0].database}.items READ, {world.shards[0].database}.notes READ")
        wait_until(lambda: _behind(working, world.leader), what="held back by lag", seconds=120)
        working.reads_nothing(10)
        on_replica("UNLOCK TABLES")
        wait_until(lambda: not _behind(working, world.leader), what="let go", seconds=120)
        on_replica("STOP SLAVE SQL_THREAD")
        try:
            stopped = f"a replica of {world.leader} has stopped"
            wait_until(lambda: stopped in working.held(), what="held back by a stop", seconds=120)
            working.reads_nothing(10)
        finally:
            on_replica("START SLAVE SQL_THREAD")
        assert not working.end().failed
    judge.agree()


def test_backfill_is_held_back_while_a_standby_is_behind(make_world: MakeWorld, outside: Outside, stack: Stack) -> None:
    world = make_world(Engine.POSTGRES, count=1, rows=8000)
    go(outside, bootstrap(world, mode=BootstrapMode.LATEST), "first")
    judge = Judge(world, since=Judge(world).ends())
    login = stack.admin(Engine.POSTGRES)
    standby = stack.postgres_standby
    with (
        Writers(world, pause=0.02),
        psycopg.connect(
            host=standby.host,
            port=standby.port,
            user=login.user,
            password=login.password,
            dbname="postgres",
            autocommit=True,
        ) as on_standby,
    ):
        working = Working(outside, backfill(world, load=SLOW), "b1", brakes=QUICK)
        wait_until(lambda: working.chunks() > 5, what="chunks were read", seconds=120)
        on_standby.execute("SELECT pg_wal_replay_pause()")
        try:
            wait_until(lambda: _behind(working, world.leader), what="held back by lag", seconds=120)
            working.reads_nothing(10)
        finally:
            on_standby.execute("SELECT pg_wal_replay_resume()")
        assert not working.end().failed
    judge.agree()


def _behind(working: Working, leader: Address) -> bool:
    return any(text.startswith(f"replicas of {leader} are ") for text in working.held())


@contextmanager
def _replica(stack: Stack) -> Iterator[Callable[[str], Any]]:
    """Runs statements on the MariaDB replica, in one session."""
    login, address = stack.admin(Engine.MARIADB), stack.mariadb_replica
    connection = pymysql.connect(
        host=address.host, port=address.port, user=login.user, password=login.password, autocommit=True
    )
    try:
        with connection.cursor() as cursor:
            yield cursor.execute
    finally:
        connection.close()
