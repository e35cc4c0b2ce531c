"""Servers on which nothing happens after a statement without rows: its GTID is no reason to wait for."""

from __future__ import annotations

import pytest

from cdc_platform.model.topology import Engine, Shard
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.engines import EACH_BINLOG
from tests.verification.proof.harness import Harness, MakeHarness
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack]

# How long a proof waits here. A connector that is at rest commits every five seconds.
REACH = 30
# A tag is for servers that know it (8.3 and later).
TAGGED = ("SET gtid_next = 'AUTOMATIC:tagged'", "ALTER TABLE t COMMENT 'tagged'", "SET gtid_next = 'AUTOMATIC'")


def _idle(make: MakeHarness, engine: Engine) -> tuple[Harness, Shard]:
    harness = make(engine, verification={"reach_seconds": REACH})
    shard = harness.add_shard("00000", "CREATE TABLE t (id BIGINT PRIMARY KEY, title TEXT)")
    harness.execute(shard, "INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    harness.deploy()
    harness.settle(shard)
    return harness, shard


def _verdict(harness: Harness) -> ShardVerdict:
    (verdict,) = harness.verify().values()
    return verdict


@EACH_BINLOG
def test_completeness_of_a_table_truncated_on_an_idle_server_is_mismatched(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness, shard = _idle(make_harness, engine)
    harness.execute(shard, "TRUNCATE TABLE t")
    verdict = _verdict(harness)
    assert (verdict.verdict, verdict.extra, verdict.source_rows) == (Verdict.MISMATCHED, 2, 0), verdict.reason


@pytest.mark.slow
@EACH_BINLOG
def test_completeness_of_an_idle_server_is_proven_whatever_statements_without_rows_came_last(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness, shard = _idle(make_harness, engine)
    harness.execute(shard, "CREATE TABLE other (id INT)")
    for statement in TAGGED if engine is Engine.MYSQL else ():
        harness.execute(shard, statement)
    harness.execute(shard, "DROP TABLE other")
    verdict = _verdict(harness)
    assert verdict.verdict is Verdict.PROVEN, verdict.reason


@pytest.mark.slow
@EACH_BINLOG
def test_completeness_of_an_idle_server_is_proven_although_its_task_began_again_and_its_binlog_was_rotated(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness, shard = _idle(make_harness, engine)
    harness.stop(shard)
    harness.resume(shard)
    harness.execute(shard, "ALTER TABLE t COMMENT 'one'")
    before = harness.field.offset(shard)
    harness.execute(shard, "FLUSH BINARY LOGS")
    assert_eventually(lambda: harness.field.offset(shard) != before, "the connector has seen the new file", 60)
    harness.execute(shard, "ALTER TABLE t COMMENT 'two'")
    verdict = _verdict(harness)
    assert verdict.verdict is Verdict.PROVEN, verdict.reason
