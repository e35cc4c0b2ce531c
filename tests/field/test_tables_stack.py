"""Tables whose rows go without row events, or that come from another database."""

from __future__ import annotations

import pytest

from cdc_platform.model.topology import Engine, Shard
from cdc_platform.planning.health.failures import Failure
from cdc_platform.snapshots.lost_positions import lost_shards
from cdc_platform.snapshots.observed_connectors import observe_connectors
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.engines import EACH_BINLOG, EACH_ENGINE
from tests.verification.proof.harness import Harness, MakeHarness
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def _found(harness: Harness) -> tuple[Verdict, int, int, int]:
    verdict: ShardVerdict
    [verdict] = harness.verify().values()
    return verdict.verdict, verdict.missing, verdict.extra, verdict.mismatched


@pytest.mark.field("EXTRA-MANY", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
@EACH_ENGINE
def test_rows_that_go_without_row_events_are_counted_and_named(make_harness: MakeHarness, engine: Engine) -> None:
    """That tombstones then remove them, in batches: tests/verification/repair."""
    harness = make_harness(engine)
    rows = ",".join(f"({n}, {n})" for n in range(400))
    if engine is Engine.POSTGRES:
        shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY, n INT)", f"INSERT INTO t VALUES {rows}")
        harness.own(shard, "t")
    else:
        parts = ", ".join(f"PARTITION p{n} VALUES LESS THAN ({n * 100 + 100})" for n in range(4))
        made = f"CREATE TABLE t (id INT PRIMARY KEY, n INT) PARTITION BY RANGE (id) ({parts})"
        shard = harness.add_shard("00000", made, f"INSERT INTO t VALUES {rows}")
    harness.deploy()
    harness.settle(shard)
    assert _found(harness) == (Verdict.PROVEN, 0, 0, 0)
    if engine is Engine.POSTGRES:
        harness.execute(shard, "TRUNCATE t")
        harness.execute(shard, "INSERT INTO t VALUES (1, 1), (500, 5)")
        harness.settle(shard)
        assert _found(harness) == (Verdict.MISMATCHED, 0, 399, 0)
        return
    for statement in (
        "ALTER TABLE t DROP PARTITION p0",
        "ALTER TABLE t TRUNCATE PARTITION p1",
        "CREATE TABLE o (id INT PRIMARY KEY, n INT)",
        "INSERT INTO o VALUES (200, 7), (201, 201)",
        "ALTER TABLE t EXCHANGE PARTITION p2 WITH TABLE o",
        "UPDATE t SET n = n WHERE id = 300",
        "INSERT INTO t VALUES (100, 1)",
    ):
        harness.execute(shard, statement)
    harness.settle(shard)
    assert harness.field.task_state(shard) == "RUNNING"
    # 100 dropped, 99 truncated (one came back), 98 exchanged away; one of the two that came has another value.
    assert _found(harness) == (Verdict.MISMATCHED, 0, 297, 1)
    harness.execute(shard, "DELETE FROM t WHERE id = 200")
    harness.settle(shard)
    assert _found(harness) == (Verdict.MISMATCHED, 0, 297, 0)


def _class_of(harness: Harness, shard: Shard) -> Failure | None:
    return lost_shards(observe_connectors(harness.platform(), harness.topology), harness.name).get(shard.id)


@pytest.mark.field("LIKE-OTHER", Engine.MARIADB, Engine.MYSQL)
@EACH_BINLOG
def test_a_table_made_like_one_of_another_database_stops_just_its_shard_by_name(
    make_harness: MakeHarness, engine: Engine
) -> None:
    """Its class is one that `bootstrap --lost` takes (tests/snapshots/test_lost_positions.py)."""
    harness = make_harness(engine)
    made = "CREATE TABLE t (id INT PRIMARY KEY, n INT)"
    shard, other = (harness.add_shard(f"{n:05d}", made, "INSERT INTO t VALUES (1, 1)") for n in range(2))
    # Before the connectors: what is made while one streams it knows, until it is restarted.
    template = f"{harness.name}_tmpl"
    for statement in (f"CREATE DATABASE {template}", made.replace(" t ", f" {template}.t ")):
        harness.execute(None, statement)
    harness.deploy()
    for one in (shard, other):
        harness.settle(one)
    for statement in ("DROP TABLE t", f"CREATE TABLE t LIKE {template}.t", "INSERT INTO t VALUES (1, 2), (2, 2)"):
        harness.execute(shard, statement)
    assert_eventually(lambda: _class_of(harness, shard) is Failure.SCHEMA_HISTORY, "its class is told", 90)
    harness.execute(other, "INSERT INTO t VALUES (2, 2)")
    harness.settle(other)
    [verdict] = harness.verify(shards=[other.id]).values()
    assert (verdict.verdict, verdict.source_rows) == (Verdict.PROVEN, 2)
    harness.execute(None, f"DROP DATABASE {template}")


@pytest.mark.field("DOMAINS", Engine.MYSQL)
@pytest.mark.mysql
def test_one_row_that_sessions_of_several_tags_change_is_proven(make_harness: MakeHarness) -> None:
    """MySQL numbers the transactions of each tag for themselves."""
    harness = make_harness(Engine.MYSQL)
    shard = harness.add_shard(
        "00000", "CREATE TABLE t (id INT PRIMARY KEY, n INT)", "INSERT INTO t VALUES (1, 0), (2, 0)"
    )
    harness.deploy()
    harness.settle(shard)
    sessions = [harness.connection(shard, f"tag {tag}").cursor() for tag in ("", ":red", ":blue")]
    for tag, session in zip(("", ":red", ":blue"), sessions, strict=True):
        session.execute(f"SET SESSION gtid_next = 'AUTOMATIC{tag}'")
    for n in range(9):
        sessions[n % 3].execute("UPDATE t SET n = %s WHERE id = 1", (n + 1,))
        if n == 4:
            assert _found(harness) == (Verdict.PROVEN, 0, 0, 0)
            harness.stop(shard)
            harness.resume(shard)
    assert _found(harness) == (Verdict.PROVEN, 0, 0, 0)
    sessions[1].execute("SET sql_log_bin = 0")
    sessions[1].execute("UPDATE t SET n = 100 WHERE id = 1")
    assert _found(harness) == (Verdict.MISMATCHED, 0, 0, 1)


@pytest.mark.field("PG-PART", Engine.POSTGRES)
def test_a_partitioned_table_is_captured_through_its_root_and_proven(make_harness: MakeHarness) -> None:
    """Also through what is done to partitions; rows that come or go with one are named."""
    harness = make_harness(Engine.POSTGRES, connector={"publish.via.partition.root": "true"})
    shard = harness.add_shard(
        "00000",
        "CREATE TABLE t (id bigint, d date, n int, body text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d)",
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2026-01-01') TO ('2026-02-01')",
        "CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY HASH (id)",
        "CREATE TABLE t_2a PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE t_2b PARTITION OF t_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "INSERT INTO t SELECT n, date '2026-01-01' + n % 50, 0, repeat('x', n * 100) FROM generate_series(0, 99) n",
    )
    for table in ("t", "t_1", "t_2", "t_2a", "t_2b"):
        harness.own(shard, table)
    harness.deploy()
    harness.settle(shard)
    assert _found(harness) == (Verdict.PROVEN, 0, 0, 0)
    for statement in (
        "UPDATE t SET n = 1 WHERE id < 20",
        "UPDATE t SET d = d + 31 WHERE id < 5",
        "DELETE FROM t WHERE id BETWEEN 30 AND 39",
        "CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')",
        "INSERT INTO t VALUES (200, '2026-03-05', 2, 'new'), (201, '2026-03-06', 2, 'new')",
    ):
        harness.execute(shard, statement)
    harness.settle(shard)
    assert harness.field.task_state(shard) == "RUNNING"
    assert _found(harness) == (Verdict.PROVEN, 0, 0, 0)
    ((gone,),) = harness.execute(shard, "SELECT count(*) FROM t_1")
    for statement in (
        "ALTER TABLE t DETACH PARTITION t_1",
        "CREATE TABLE t_4 (LIKE t INCLUDING ALL)",
        "INSERT INTO t_4 VALUES (300, '2026-04-05', 3, 'attached')",
        "ALTER TABLE t ATTACH PARTITION t_4 FOR VALUES FROM ('2026-04-01') TO ('2026-05-01')",
        "UPDATE t SET n = 3 WHERE id = 200",
    ):
        harness.execute(shard, statement)
    harness.settle(shard)
    assert _found(harness) == (Verdict.MISMATCHED, 1, gone, 0)
