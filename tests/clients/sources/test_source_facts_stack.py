"""What real servers say of the logs and tables of captured shards, and what is found by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cdc_platform.clients.platform import Platform
from cdc_platform.clients.sources.logs import RealSourceLogs
from cdc_platform.clients.sources.source_facts import RealSourceFacts
from cdc_platform.connectors.identity import identity
from cdc_platform.errors import SourceUnavailable
from cdc_platform.model.positions import Committed
from cdc_platform.model.source_facts import SourceFacts
from cdc_platform.model.source_log import SourceLog
from cdc_platform.model.topology import Address, Engine, Shard, Table
from cdc_platform.planning.health.log_guard import LogState, binlog_state
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.planning.health.source_hazards import SourceRecord, judged
from cdc_platform.verification.proof.verdicts import ShardVerdict, Verdict
from tests.verification.proof.harness import Harness
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack

MakeHarness = Callable[..., Harness]


def reader(harness: Harness) -> RealSourceFacts:
    return RealSourceFacts(secrets_dirs=harness.settings.secrets_dirs)


def facts(harness: Harness, shard: Shard) -> SourceFacts:
    own = identity(harness.settings, harness.dataset, shard)
    answer = reader(harness).read(harness.dataset, [(shard, own)])[shard.name]
    assert isinstance(answer, SourceFacts), answer
    return answer


def look(harness: Harness, shard: Shard, before: SourceRecord | None = None) -> SourceRecord:
    """What a pass records of a shard that is captured."""
    return judged(harness.dataset, facts(harness, shard), before, captured=True, now=datetime.now(UTC))


def assert_same_place(harness: Harness, shard: Shard, found: SourceFacts) -> None:
    """By another of its addresses a server says that it is the same."""
    alias = replace(shard, leader=Address("localhost", shard.leader.port))
    assert found.place and facts(harness, alias).place == found.place
    other = replace(shard, database="postgres" if harness.dataset.engine is Engine.POSTGRES else "other")
    assert facts(harness, other).place not in ("", found.place)


def kinds(record: SourceRecord) -> set[tuple[HazardKind, str]]:
    return {(hazard.kind, hazard.table) for hazard in record.hazards}


@pytest.mark.field("PG-SWAP", Engine.POSTGRES)
def test_a_swapped_table_is_named_published_again_and_named_by_the_proof(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.POSTGRES, Table(name="t"), Table(name="w"))
    shard = harness.add_shard(
        "00000", "CREATE TABLE t (id int PRIMARY KEY, v text)", "CREATE TABLE w (LIKE t INCLUDING ALL)"
    )
    for table in ("t", "w"):
        harness.own(shard, table)
    harness.execute(shard, "INSERT INTO t SELECT n, 'old' FROM generate_series(1, 5) n")
    harness.deploy()
    harness.settle(shard)
    assert_same_place(harness, shard, facts(harness, shard))
    before = look(harness, shard)
    assert before.hazards == () and before.gaps == () and set(before.tables) == {"t", "w"}

    harness.execute(shard, "CREATE TABLE t_new (LIKE t INCLUDING ALL); INSERT INTO t_new SELECT * FROM t")
    harness.execute(shard, "BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; COMMIT")
    harness.own(shard, "t")
    harness.execute(shard, "INSERT INTO t VALUES (6, 'lost'); UPDATE t SET v = 'lost' WHERE id = 1")
    harness.execute(shard, "CREATE SCHEMA s; ALTER TABLE w SET SCHEMA s")

    found = look(harness, shard, before)
    assert kinds(found) == {(HazardKind.UNPUBLISHED, "t"), (HazardKind.ABSENT, "w")} and found.publish
    assert {gap.kind for gap in found.gaps} == {HazardKind.UNPUBLISHED, HazardKind.REPLACED}
    platform = replace(harness.platform(), facts=reader(harness))
    verdict = verify(harness, platform)
    assert verdict.verdict is Verdict.MISMATCHED and "the publication lacks public.t" in verdict.reason

    own = identity(harness.settings, harness.dataset, shard)
    RealSourceLogs(secrets_dirs=harness.settings.secrets_dirs).publish(harness.dataset, shard, own)
    mended = look(harness, shard, found)
    assert kinds(mended) == {(HazardKind.ABSENT, "w")} and not mended.publish
    assert all(gap.found_at >= found.gaps[0].found_at for gap in mended.gaps)
    harness.execute(shard, "INSERT INTO t VALUES (7, 'arrives'); UPDATE t SET v = v; DELETE FROM t WHERE id = 5")
    harness.settle(shard)
    assert verify(harness, platform).verdict is Verdict.PROVEN


def test_what_a_publication_withholds_is_named_and_published_again(make_harness: MakeHarness) -> None:
    """Rows by a filter, columns by a list, statements by its `publish`: the task runs on, and nothing arrives."""
    harness = make_harness(Engine.POSTGRES)
    shard = harness.add_shard("00000", "CREATE TABLE t (id int PRIMARY KEY, v text)", "INSERT INTO t VALUES (1, 'a')")
    harness.own(shard, "t")
    harness.deploy()
    harness.settle(shard)
    logs, own = (
        RealSourceLogs(secrets_dirs=harness.settings.secrets_dirs),
        identity(harness.settings, harness.dataset, shard),
    )
    before = look(harness, shard)
    assert before.hazards == ()
    name = harness.publication(shard)
    for change, what in (
        ("SET TABLE t WHERE (id > 100)", "rows"),
        ("SET TABLE t (id)", "columns"),
        ("SET (publish = 'insert, update')", "DELETE"),
    ):
        harness.execute(shard, f'ALTER PUBLICATION "{name}" {change}')
        found = look(harness, shard, before)
        assert kinds(found) == {(HazardKind.UNPUBLISHED, "t")} and f"({what})" in found.hazards[0].text
        assert found.losing and found.publish and [gap.kind for gap in found.gaps] == [HazardKind.UNPUBLISHED]
        logs.publish(harness.dataset, shard, own)
        assert look(harness, shard, before).hazards == ()
    harness.execute(shard, "UPDATE t SET v = 'b'; INSERT INTO t VALUES (2, 'c'); DELETE FROM t WHERE id = 1")
    harness.settle(shard)
    assert verify(harness, harness.platform()).verdict is Verdict.PROVEN


def verify(harness: Harness, platform: Platform) -> ShardVerdict:
    return harness.verify(outside=harness.outside(platform))["00000"]


BINLOG = [Engine.MARIADB, pytest.param(Engine.MYSQL, marks=pytest.mark.mysql)]


@pytest.mark.parametrize("engine", BINLOG)
@pytest.mark.field("HASH-COL", Engine.MARIADB)
def test_definitions_that_lose_changes_or_stop_the_connector_are_named(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine, Table(name="t"), Table(name="c"), Table(name="n"), Table(name="gone"))
    maria = engine is Engine.MARIADB
    shard = harness.add_shard(
        "00000",
        "CREATE TABLE t (id INT PRIMARY KEY, v TEXT, w VARCHAR(9))",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, CONSTRAINT k FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE)",
        "CREATE TABLE n (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES t (id) ON DELETE RESTRICT)",
        "ALTER TABLE c ADD q INT, ADD CONSTRAINT `o'd` FOREIGN KEY (q) REFERENCES t (id) ON UPDATE SET NULL",
        *(["ALTER TABLE t ADD UNIQUE KEY u (v)", "ALTER TABLE n ADD z TEXT COMPRESSED"] if maria else []),
    )
    found = facts(harness, shard)
    assert_same_place(harness, shard, found)
    assert set(found.tables) == {"t", "c", "n"} and found.twins == () and found.settings == {}
    assert [name for name, _ in found.tables["t"].columns] == ["id", "v", "w"]
    cascades = ("k (ON DELETE CASCADE)", "o'd (ON UPDATE SET NULL)")
    logged = harness.execute(shard, "SHOW GLOBAL VARIABLES LIKE 'innodb_native_foreign_keys'")  # MySQL from 9.6 on
    assert found.tables["c"].cascades == (() if logged else cascades)
    assert found.tables["n"].cascades == ()
    unreadable = {(HazardKind.UNREADABLE, "t"), (HazardKind.UNREADABLE, "n")} if maria else set()
    warned = set() if logged else {(HazardKind.CASCADE, "c")}
    assert kinds(look(harness, shard)) == {*warned, *unreadable}
    assert found.log is not None and found.log.bytes > 0 and found.log.written >= found.log.bytes
    before = look(harness, shard)
    harness.execute(shard, "RENAME TABLE c TO c_old")
    after = look(harness, shard, before)
    assert kinds(after) == {(HazardKind.ABSENT, "c"), *unreadable} and after.losing is None
    harness.execute(shard, "RENAME TABLE c_old TO c")
    assert kinds(look(harness, shard, after)) == kinds(before)
    # A name in small letters is matched exactly, another one is not.
    harness.execute(shard, "CREATE TABLE T (id INT PRIMARY KEY)")
    assert facts(harness, shard).twins == ()
    harness.tables = (Table(name="T"),)
    assert kinds(look(harness, shard)) == {(HazardKind.CASE_TWIN, "")}


@pytest.mark.parametrize("engine", BINLOG)
@pytest.mark.field("FK-CASCADE", Engine.MARIADB, Engine.MYSQL)
def test_cascades_are_warned_of_where_they_are_lost(make_harness: MakeHarness, engine: Engine) -> None:
    harness = make_harness(engine, Table(name="c"))
    shard = harness.add_shard(
        "00000",
        "CREATE TABLE p (id INT PRIMARY KEY)",
        "CREATE TABLE c (id INT PRIMARY KEY, p INT, CONSTRAINT k FOREIGN KEY (p) REFERENCES p (id) ON DELETE CASCADE)",
        "INSERT INTO p VALUES (1), (2)",
        "INSERT INTO c VALUES (1, 1), (2, 2)",
    )
    harness.deploy()
    harness.settle(shard)
    platform = replace(harness.platform(), facts=reader(harness))
    before = verify(harness, platform)
    assert before.verdict is Verdict.PROVEN
    harness.execute(shard, "DELETE FROM p WHERE id = 1")
    harness.settle(shard)
    after = verify(harness, platform)
    assert (after.verdict is Verdict.PROVEN) != any("foreign key k" in warning for warning in before.warnings)


@pytest.mark.parametrize("engine", BINLOG)
@pytest.mark.field("BINLOG-ZIP", Engine.MARIADB)
def test_server_settings_that_keep_changes_out_of_the_log_are_found_on_a_running_shard(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine)
    shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY)")
    harmful = {"binlog_format": "STATEMENT", "binlog_row_image": "MINIMAL"}
    harmful |= {"log_bin_compress": "1"} if engine is Engine.MARIADB else {"binlog_row_value_options": "PARTIAL_JSON"}
    for name, value in harmful.items():
        ((before,),) = harness.execute(None, f"SELECT @@global.{name}")
        harness.execute(None, f"SET GLOBAL {name} = {value}")
        try:
            found = look(harness, shard)
        finally:
            harness.execute(None, f"SET GLOBAL {name} = %s", (before,))
        assert found.losing is not None and f"{name} is {value}" in found.losing.text
        assert [gap.kind for gap in found.gaps] == [HazardKind.LOG_SETTINGS]
    assert look(harness, shard).hazards == ()


def test_a_slot_whose_connector_is_stopped_keeps_wal_until_it_is_dropped(make_harness: MakeHarness) -> None:
    harness = make_harness(Engine.POSTGRES)
    shard = harness.add_shard("00000", "CREATE TABLE t (id int PRIMARY KEY, v text)")
    harness.own(shard, "t")
    harness.deploy()
    harness.settle(shard)
    before = facts(harness, shard).log
    assert before is not None and before.state == "reserved" and not facts(harness, shard).slotless
    harness.stop(shard)
    harness.execute(shard, "INSERT INTO t SELECT n, repeat(md5(n::text), 40) FROM generate_series(1, 20000) n")
    after = facts(harness, shard).log
    assert after is not None and after.bytes - before.bytes > 20 << 20 and after.written - before.written > 20 << 20
    own = identity(harness.settings, harness.dataset, shard)
    logs = RealSourceLogs(secrets_dirs=harness.settings.secrets_dirs)

    def dropped() -> bool:
        # The server's sender of a task that was stopped ends a moment after it.
        with suppress(SourceUnavailable):
            logs.drop_slot(harness.dataset, shard, own)
            return True
        return False

    assert_eventually(dropped, "the slot is free")
    gone = facts(harness, shard)
    assert gone.log is None and gone.slotless
    record = judged(harness.dataset, gone, None, captured=True, now=datetime.now(UTC))
    assert [hazard.kind for hazard in record.hazards] == [HazardKind.LOG_LOST] and record.losing


@pytest.mark.parametrize("engine", BINLOG)
def test_binlogs_that_are_purged_before_the_connector_has_read_them_are_told(
    make_harness: MakeHarness, engine: Engine
) -> None:
    harness = make_harness(engine)
    shard = harness.add_shard("00000", "CREATE TABLE t (id INT PRIMARY KEY)")
    harness.deploy()
    harness.settle(shard)

    def state() -> LogState:
        log, committed = facts(harness, shard).log, Committed.parse(engine, harness.field.offset(shard))
        assert log is not None and committed.position and log.begins
        return binlog_state(log, SourceLog(), None, 300.0, datetime.now(UTC), committed)

    def purge() -> str:
        """All binlogs but the newest; its name."""
        harness.execute(None, "FLUSH BINARY LOGS")
        newest = str(harness.execute(None, "SHOW BINARY LOGS")[-1][0])

        def purged() -> bool:
            # A replica that has not got there holds them up.
            harness.execute(None, f"PURGE BINARY LOGS TO '{newest}'")
            return len(harness.execute(None, "SHOW BINARY LOGS")) == 1

        assert_eventually(purged, "the binlogs are purged")
        return newest

    harness.stop(shard)
    purge()
    assert (state().hazard, state().lost) == ("", ""), "what it has read may go"
    harness.execute(shard, "INSERT INTO t VALUES (1)")
    harness.execute(None, "FLUSH BINARY LOGS")
    assert "the oldest binlog that the server keeps" in state().hazard and not state().lost
    newest = purge()
    assert newest in state().lost and state().seconds_left == 0
    record = judged(harness.dataset, facts(harness, shard), None, captured=True, now=datetime.now(UTC), log=state())
    assert record.losing is not None and record.losing.kind is HazardKind.LOG_LOST
