"""Readers by key on the real stack: gone shards, changed keys, added partitions, and the tombstones that end them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pymysql
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.connectors.identity import identity
from cdc_platform.errors import RepairRefused, SourceRejected
from cdc_platform.model.topology import Engine, Shard
from cdc_platform.verification.proof.verdicts import MOVED, ShardVerdict, Verdict
from cdc_platform.verification.repair.reemit import RepairPorts, RepairReport, run_repair
from cdc_platform.verification.repair.repair_plan import find_repair
from tests.engines import EACH_BINLOG, EACH_ENGINE
from tests.verification.proof.harness import Harness, MakeHarness
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack

ROWS = 30


def _shard(harness: Harness, number: str, first: int = 0) -> Shard:
    key = "id BIGINT NOT NULL, tenant INT NOT NULL, n INT, PRIMARY KEY (id)"
    shard = harness.add_shard(number, f"CREATE TABLE t ({key})")
    if harness.engine is Engine.POSTGRES:
        harness.own(shard, "t")
    rows = ",".join(f"({n}, 1, 0)" for n in range(first, first + ROWS))
    harness.execute(shard, f"INSERT INTO t VALUES {rows}")
    return shard


def _live(harness: Harness) -> int:
    """Rows of a reader by key: of each partition and key the last record."""
    last = [dict(part) for part in harness.records()]
    return sum(value is not None and json.loads(value)["op"] != "d" for part in last for value in part.values())


def _repaired(harness: Harness, *shards: str, foreign: tuple[str, ...] = ()) -> RepairReport:
    """Tombstones for what is extra, and the proof of it."""
    proof = harness.outside()
    snapshots = SimpleNamespace(writer=lambda name: proof.platform.state)
    plan = find_repair(
        proof, harness.topology, harness.name, "t", shards, foreign=foreign, run_id="repair", tombstones=True
    )
    # Rows that moved would be sent again: there is no control plane here, and readers by key need it not.
    plan = replace(plan, shards=tuple(replace(shard, emit=()) for shard in plan.shards), counts={})
    return run_repair(RepairPorts(proof=proof, snapshots=snapshots), harness.topology, plan)  # type: ignore[arg-type]


def _verdicts(harness: Harness) -> dict[str, Verdict]:
    return {shard: verdict.verdict for shard, verdict in harness.verify().items()}


@EACH_ENGINE
@pytest.mark.field("PK-CHANGE", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
@pytest.mark.field("SHARD-GONE", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
def test_completeness_beside_a_shard_that_is_gone_and_one_whose_key_changed(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine)
    stays, changes, gone = (_shard(harness, f"{n:05d}", 100 * n) for n in range(3))
    harness.deploy()
    assert set(_verdicts(harness).values()) == {Verdict.PROVEN}

    # The topology loses a shard: its rows are a finding of the table, and no shard's.
    topology = replace(harness.topology, shards={harness.name: (stays, changes)})
    harness.shards.remove(gone)
    found = harness.verify(shards=[stays.id]).values()
    assert [(one.verdict, one.foreign_rows, one.foreign_shards) for one in found] == [
        (Verdict.PROVEN, ROWS, (gone.id,))
    ]
    with pytest.raises(RepairRefused, match="its connector is still there"):
        _repaired(harness, foreign=(gone.id,))
    assert harness.field.rest.delete(f"{harness.field.url}/connectors/{gone.name}").is_success
    report = _repaired(harness, foreign=(gone.id,))
    assert (report.tombstoned, report.foreign, report.proven) == (ROWS, {gone.id: 0}, True)
    [verdict] = harness.verify(shards=[stays.id]).values()
    assert (verdict.verdict, verdict.foreign_rows) == (Verdict.PROVEN, 0)
    assert topology == harness.topology
    assert _live(harness) == 2 * ROWS

    # The primary key of one shard of two gets a column; the application goes on.
    drop = "DROP PRIMARY KEY" if engine.reads_binlog else "DROP CONSTRAINT t_pkey"
    harness.execute(changes, f"ALTER TABLE t {drop}, ADD PRIMARY KEY (tenant, id)")
    for shard in (stays, changes):
        first = 0 if shard is stays else 100
        harness.execute(shard, "UPDATE t SET n = n + 1")
        harness.execute(shard, f"DELETE FROM t WHERE id = {first}")
        harness.execute(shard, f"INSERT INTO t VALUES ({first + 50}, 1, 5)")
    verdicts = harness.verify()
    assert verdicts[stays.id].verdict is Verdict.PROVEN
    one = verdicts[changes.id]
    assert (one.verdict, one.missing, one.extra, one.mismatched) == (Verdict.MISMATCHED, 0, ROWS, 0), one
    assert all(json.loads(sample.key).keys() == {"id", "shard"} for sample in one.samples)
    report = _repaired(harness, changes.id)
    assert (report.tombstoned, report.proven) == (ROWS, True)
    assert set(_verdicts(harness).values()) == {Verdict.PROVEN}
    assert _live(harness) == 2 * ROWS

    # The other side of the migration, and back again: the longer key names the same rows.
    harness.execute(changes, f"ALTER TABLE t {drop}, ADD PRIMARY KEY (id)")
    harness.execute(changes, "UPDATE t SET n = n + 1")
    verdicts = harness.verify()
    assert verdicts[stays.id].verdict is Verdict.PROVEN
    assert (verdicts[changes.id].missing, verdicts[changes.id].extra) == (0, ROWS), verdicts[changes.id]
    assert _repaired(harness, changes.id).proven
    assert _live(harness) == 2 * ROWS
    harness.shards.append(gone)  # so that its database is removed


@pytest.mark.parametrize(
    "engine",
    [Engine.MARIADB, Engine.MYSQL, pytest.param(Engine.POSTGRES, marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.field("PART-GROW", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
def test_completeness_after_partitions_were_added_names_the_rows_that_stayed(
    make_harness: MakeHarness, engine: Engine
) -> None:
    """Keys move to other partitions; what stands where they were before lives on for readers by key."""
    harness = make_harness(engine)
    shard = _shard(harness, "00000")
    harness.deploy()
    harness.settle(shard)
    admin = AdminClient(dict(harness.settings.kafka))
    admin.create_partitions([NewPartitions(harness.topic(), 7)])[harness.topic()].result(30)
    harness.stop(shard)
    harness.resume(shard)

    def moved() -> bool:
        # The connector's producer learns of them in a while (metadata.max.age.ms), or by a new start.
        harness.execute(shard, "UPDATE t SET n = n + 1")
        harness.settle(shard)
        return any(harness.records()[number] for number in range(3, 7))

    assert_eventually(moved, "events stand in the new partitions", 120)
    harness.execute(shard, "DELETE FROM t WHERE id < 10")

    def judged() -> ShardVerdict:
        [verdict] = harness.verify().values()
        return verdict

    verdict, left = judged(), _live(harness) - 20
    assert (verdict.verdict, verdict.missing, verdict.extra, verdict.mismatched) == (Verdict.MISMATCHED, 0, left, 0)
    assert left > 10 and {sample.kind for sample in verdict.samples} == {MOVED}
    report = _repaired(harness, shard.id)
    assert (report.tombstoned, report.proven) == (left, True)
    verdict = judged()
    assert verdict.source_rows == verdict.topic_rows == _live(harness) == 20


@pytest.mark.field("DOMAINS", Engine.MARIADB)
def test_completeness_of_one_row_that_sessions_of_two_gtid_domains_change(make_harness: MakeHarness) -> None:
    """The numbers of two domains do not compare: the last change is that which stands last in the log."""
    harness = make_harness(Engine.MARIADB)
    shard = _shard(harness, "00000")
    harness.deploy()
    harness.settle(shard)
    sessions = {domain: harness.connection(shard, f"domain {domain}").cursor() for domain in (0, 7)}
    for domain, cursor in sessions.items():
        cursor.execute(f"SET gtid_domain_id = {domain}")
    for n, domain in enumerate((0, 7, 0, 7, 0, 7, 7, 0)):
        sessions[domain].execute(f"UPDATE t SET n = {n + 1} WHERE id IN (1, {n + 2})")
        if n in (3, 4):
            [verdict] = harness.verify().values()
            assert (verdict.verdict, verdict.warnings) == (Verdict.PROVEN, ()), verdict
            harness.stop(shard)
            harness.resume(shard)
    [verdict] = harness.verify().values()
    assert (verdict.verdict, verdict.warnings) == (Verdict.PROVEN, ()), verdict
    # And it is no blindness: a change that no log has is named.
    sessions[7].execute("SET sql_log_bin = 0")
    sessions[7].execute("UPDATE t SET n = 100 WHERE id = 1")
    [verdict] = harness.verify().values()
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (0, 0, 1)


@EACH_BINLOG
@pytest.mark.field("XA-ROLLBACK", Engine.MARIADB, Engine.MYSQL)
def test_completeness_beside_prepared_transactions_is_pending_and_what_was_rolled_back_is_named(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine)
    shard = _shard(harness, "00000")
    harness.deploy()
    harness.settle(shard)

    xa, name = harness.connection(shard, "xa").cursor(), harness.name

    def prepared(*statements: str) -> None:
        for statement in (f"XA START '{name}'", *statements, f"XA END '{name}'", f"XA PREPARE '{name}'"):
            xa.execute(statement)
        # The connector's offset goes past a prepared transaction with the next one.
        harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id = 20")

    try:
        prepared("INSERT INTO t VALUES (900, 1, 0)", "UPDATE t SET n = 5 WHERE id = 1")
        [verdict] = harness.verify().values()
        assert (verdict.verdict, verdict.extra, verdict.mismatched) == (Verdict.PENDING, 1, 1), verdict
        assert "XA transactions are prepared" in verdict.reason and name in verdict.reason
        xa.execute(f"XA COMMIT '{name}'")
        harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id = 20")
        assert _verdicts(harness) == {shard.id: Verdict.PROVEN}
        prepared("INSERT INTO t VALUES (901, 1, 0)", "UPDATE t SET n = 6 WHERE id = 1")
    finally:
        with suppress(pymysql.Error):  # or the database cannot be dropped
            xa.execute(f"XA ROLLBACK '{name}'")
    harness.execute(shard, "UPDATE t SET n = n + 1 WHERE id = 20")
    [verdict] = harness.verify().values()
    assert (verdict.verdict, verdict.extra, verdict.mismatched) == (Verdict.MISMATCHED, 1, 1), verdict
    assert {json.loads(sample.key)["id"] for sample in verdict.samples} == {"901", "1"}


@EACH_BINLOG
@pytest.mark.field("KEY-SPELL", Engine.MARIADB, Engine.MYSQL)
def test_completeness_of_a_key_that_snapshot_and_stream_spell_differently_is_never_proven(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine)
    shard = harness.add_shard("00000", "CREATE TABLE t (a INT, at TIMESTAMP(3), n INT, PRIMARY KEY (a, at))")
    for n in range(5):
        harness.execute(shard, "INSERT INTO t VALUES (%s, %s, 0)", (n, f"2026-01-02 03:04:05.{n}00"))
    harness.deploy()
    harness.settle(shard)
    harness.execute(shard, "UPDATE t SET n = 1")
    harness.execute(shard, "DELETE FROM t WHERE a < 3")
    [verdict] = harness.verify().values()
    left = _live(harness) - 2
    assert left > 0
    assert (verdict.verdict, verdict.missing, verdict.extra, verdict.mismatched) == (Verdict.MISMATCHED, 0, left, 0)
    assert any("the key column at: a snapshot spells" in warning for warning in verdict.warnings)
    assert _repaired(harness, shard.id).proven
    assert _live(harness) == 2
    with pytest.raises(SourceRejected, match=r"t cannot be captured: its key column at is a timestamp\(3\)"):
        RealSourceLogs(secrets_dirs=harness.settings.secrets_dirs).publish(
            harness.dataset, shard, identity(harness.settings, harness.dataset, shard)
        )


@pytest.mark.field("ARRAY-2D", Engine.POSTGRES)
def test_completeness_of_arrays_whose_bounds_the_topic_lost_is_never_proven(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.POSTGRES)
    shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY, a INT[], b TEXT[])")
    harness.own(shard, "t")
    harness.execute(shard, "INSERT INTO t VALUES (1, '{7,8}', '{x}'), (2, '{}', NULL)")
    harness.deploy()
    assert _verdicts(harness) == {shard.id: Verdict.PROVEN}
    harness.execute(shard, "INSERT INTO t VALUES (3, '[0:1]={7,8}', '{x}'), (4, '{7}', '[5:6]={x,y}')")
    harness.execute(shard, "INSERT INTO t VALUES (5, '{{1,2},{3,4}}', '{x}'), (6, '{1,2}', '{}')")
    [verdict] = harness.verify().values()
    assert (verdict.missing, verdict.extra, verdict.mismatched) == (0, 0, 3), "\n".join(harness.explain(verdict))
    assert {sample.key: sample.columns for sample in verdict.samples} == {
        '{"id": "3"}': ("a",), '{"id": "4"}': ("b",), '{"id": "5"}': ("a",),
    }  # fmt: skip
