"""What happens beside the platform: connectors that others delete, a server without slots, a slot that is given up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from cdc_platform.alerting.conditions import recorded_conditions
from cdc_platform.model.alert_messages import Severity
from cdc_platform.model.source_log import SourceLog, WhenFull
from cdc_platform.model.topology import Engine, Shard
from cdc_platform.planning.actions import GiveUpSlot
from cdc_platform.planning.health.failures import Failure, classify
from cdc_platform.reconciler.report import PassReport
from cdc_platform.reconciler.run_pass import reconcile
from cdc_platform.reconciler.source_round import of_dataset
from cdc_platform.settings import CONFIG_ENV
from cdc_platform.snapshots.lost_positions import failed_trace, for_lost_shards
from cdc_platform.snapshots.observed_connectors import observe_connectors
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.verification.continuity.breaks import BreakKind
from cdc_platform.verification.continuity.ledger import breaks_on_record
from tests.engines import EACH_BINLOG
from tests.settings_file import write_settings
from tests.snapshots.conftest import MakeHarness, bootstrap, go
from tests.snapshots.harness import Harness, TopicCheck
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack


def passes(outside: SnapshotPorts, harness: Harness) -> PassReport:
    """One pass that asks the sources of the dataset."""
    report = reconcile(outside.platform, owner="test", wait_for_lock=60.0, asked=of_dataset(harness.name))
    print(report.sentence())
    return report


def trace(outside: SnapshotPorts, shard: Shard) -> str | None:
    return failed_trace(observe_connectors(outside.platform, outside.platform.topology.load()), shard.name)


def runs(outside: SnapshotPorts, shard: Shard) -> bool:
    observed = observe_connectors(outside.platform, outside.platform.topology.load())
    found = {name: one for cluster in observed.clusters.values() for name, one in (cluster.connectors or {}).items()}
    return shard.name in found and found[shard.name].running


@pytest.mark.field("STRIMZI", Engine.MARIADB, Engine.MYSQL, Engine.POSTGRES)
@pytest.mark.parametrize(
    "engine",
    [Engine.MARIADB, *(pytest.param(one, marks=pytest.mark.slow) for one in (Engine.MYSQL, Engine.POSTGRES))],
    ids=str,
)
def test_connectors_that_another_program_deletes_are_told_of_and_lose_nothing(
    make_harness: MakeHarness, outside: SnapshotPorts, engine: Engine
) -> None:
    harness = make_harness(engine, count=2, rows=50)
    go(outside, bootstrap(harness), "first")
    passes(outside, harness)
    connect = outside.platform.connect(harness.stack.cluster())
    severities = []
    for number in (1, 2):
        for shard in harness.shards:
            connect.delete(shard.name)
            with harness.admin(shard.database) as run:
                harness.fill(run, "items", 1000 * number, 1000 * number + 9)
                run("DELETE FROM items WHERE id = %s", number)
        told = [finding.text for finding in passes(outside, harness).plan.findings]
        assert any("another program deleted 2 connectors" in text for text in told), told
        found = recorded_conditions(
            outside.platform.state.read(), outside.platform.topology.load(), harness.settings, datetime.now(UTC),
            timedelta(),
        )  # fmt: skip
        severities.append(found[f"deleted/{harness.name}"].severity)
    assert severities == [Severity.WARNING, Severity.CRITICAL]
    TopicCheck(harness).assert_agrees()


@contextmanager
def no_free_slot(harness: Harness) -> Iterator[int]:
    """All slots of the server are in use; how many there are."""
    made: list[str] = []
    with harness.admin() as run:
        ((most,),) = run("SELECT setting::int FROM pg_settings WHERE name = 'max_replication_slots'")
        try:
            while True:
                name = f"{harness.name}_filler_{len(made)}"
                try:
                    run("SELECT pg_create_physical_replication_slot(%s)", name)
                except psycopg.errors.ConfigurationLimitExceeded:
                    break
                made.append(name)
            yield int(most)
        finally:
            for name in made:
                run("SELECT pg_drop_replication_slot(%s)", name)


@pytest.mark.slow
@pytest.mark.field("SLOTS-FULL", Engine.POSTGRES)
def test_shards_without_a_free_slot_are_named_and_go_on_once_there_is_one(
    make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    harness = make_harness(Engine.POSTGRES, count=2, rows=50)
    first, new = harness.shards
    outside.platform.topology.delete_shard(harness.name, new.id)
    go(outside, bootstrap(harness), "first")
    passes(outside, harness)
    with no_free_slot(harness) as most:
        outside.platform.topology.put_shard(new)
        plan = passes(outside, harness).plan
        told = [*(finding.text for finding in plan.findings), *(refusal.reason for refusal in plan.refusals)]
        assert any(f"max_replication_slots leaves 0 of {most}" in text for text in told), told
        assert_eventually(lambda: trace(outside, new) is not None, "its task fails", 120)
        assert classify(trace(outside, new)) is Failure.NO_FREE_SLOT
        with harness.admin(first.database) as run:
            harness.fill(run, "items", 100, 120)
        alone = replace(harness)
        alone.shards = (first,)
        TopicCheck(alone).assert_agrees()
    end = time.monotonic() + 240
    while not all(runs(outside, shard) for shard in harness.shards):
        assert time.monotonic() < end, "the shards have their slots"
        passes(outside, harness)
        time.sleep(2)


@pytest.mark.slow
def test_a_slot_that_is_given_up_says_what_is_lost_and_the_shard_goes_on(
    make_harness: MakeHarness, outside: SnapshotPorts
) -> None:
    """A transaction that nobody ends keeps WAL, be the connector as well as it may."""
    harness = make_harness(Engine.POSTGRES, count=1, rows=50)
    (given,) = harness.shards
    go(outside, bootstrap(harness), "first")
    passes(outside, harness)
    limits = SourceLog(full_bytes=24 << 20, when_full=WhenFull.GIVE_UP_SLOT)
    with closing(harness_session(harness, given)) as session:
        session.execute("INSERT INTO notes VALUES (1001, 1, 'never committed')")
        with harness.admin(given.database) as run:
            harness.fill(run, "items", 100, 299, v=1)
            run("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000)) FROM generate_series(1, 30)")
        unread = (
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn) FROM pg_replication_slots"
            " WHERE database = %s"
        )
        with harness.admin() as run:
            caught_up = lambda: run(unread, given.database)[0][0] < 1 << 20  # noqa: E731
            assert_eventually(caught_up, "the connector has read what there is", 120)
        harness.dataset = replace(harness.dataset, source_log=limits)
        outside.platform.topology.put_dataset(harness.dataset)
        report = passes(outside, harness)
        (action,) = [one for one in report.plan.actions if isinstance(one, GiveUpSlot) and one.name == given.name]
        assert "MiB" in action.sentence() and "is lost" in action.sentence()
        assert "an open or prepared transaction keeps the rest" in action.sentence()
        # The server's sender may outlive its task by a moment: then the slot is in use, and a later pass drops it.
        end = time.monotonic() + 120
        while report.failed:
            assert time.monotonic() < end, report.failed
            report = passes(outside, harness)
        with harness.admin() as run:
            assert not run("SELECT 1 FROM pg_replication_slots WHERE database = %s", given.database)
    with harness.admin(given.database) as run:
        harness.fill(run, "items", 300, 309, v=2)
        run("DELETE FROM items WHERE id <= 10")
    found = breaks_on_record(outside.platform.state.read(), harness.name, "items")[given.id]
    assert [(one.kind, "given up" in one.range) for one in found] == [(BreakKind.NOT_CAPTURED, True)]
    # The way on that the text names: the next pass resumes it, it fails by name, and `--lost` takes it.
    assert_eventually(lambda: bool(passes(outside, harness)) and trace(outside, given) is not None, "it fails", 180)
    assert classify(trace(outside, given)) is Failure.SLOT_MISSING
    observed = observe_connectors(outside.platform, outside.platform.topology.load())
    request = for_lost_shards(observed, bootstrap(harness))
    assert request.shards == (given.id,)
    go(outside, request, "again")
    check = TopicCheck(harness)
    # What was deleted meanwhile is all that is left to repair.
    assert_eventually(lambda: len(check.differences()) == 10, "just the deleted rows differ", 60)
    assert all(f"{given.name} items" in text and "source None" in text for text in check.differences())


def harness_session(harness: Harness, shard: Shard) -> psycopg.Connection[tuple[object, ...]]:
    """A session of the application that ends its transactions itself."""
    login = harness.stack.admin(Engine.POSTGRES)
    return psycopg.connect(
        host=harness.leader.host, port=harness.leader.port, user=login.user, password=login.password,
        dbname=shard.database,
    )  # fmt: skip


COMMAND = str(Path(sys.executable).parent / "cdc-platform")
UNKNOWN = {
    Engine.MARIADB: "CREATE OR REPLACE TABLE z (id INT PRIMARY KEY, i INET6)",
    Engine.MYSQL: "ALTER TABLE z CHANGE s url TEXT",
}


@pytest.mark.slow
@EACH_BINLOG
@pytest.mark.field("DDL-PARSE", Engine.MARIADB, Engine.MYSQL)
def test_skip_statement_lets_one_shard_and_then_the_others_go_on_from_the_command_line(
    make_harness: MakeHarness, outside: SnapshotPorts, engine: Engine, tmp_path: Path
) -> None:
    harness = make_harness(engine, count=2, rows=50)
    go(outside, bootstrap(harness), "first")
    passes(outside, harness)
    env = {**os.environ, CONFIG_ENV: str(write_settings(harness.settings, tmp_path / "cdc-platform.toml"))}

    def command(*words: str) -> str:
        done = subprocess.run([COMMAND, *words], env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    events = sum(TopicCheck(harness).ends().values())
    with harness.admin() as run:
        run(f"CREATE DATABASE {harness.name}_other")
        run(f"USE {harness.name}_other")
        for statement in ("CREATE TABLE z (id INT PRIMARY KEY, s INT)", UNKNOWN[engine]):
            run(statement)
        run(f"DROP DATABASE {harness.name}_other")
    first, second = harness.shards
    for shard in harness.shards:
        with harness.admin(shard.database) as run:
            harness.fill(run, "items", 100, 109)
        assert_eventually(lambda shard=shard: trace(outside, shard) is not None, "its task fails", 120)  # type: ignore[misc]
    dry = command("topology", "skip-statement", harness.name, "--dry-run")
    assert all(f"{shard.name}: would pass over {UNKNOWN[engine]}" in dry for shard in harness.shards)
    told = command("topology", "skip-statement", harness.name, first.id)
    assert f"{first.name}: passes over" in told and second.name not in told
    command("apply")
    assert_eventually(lambda: runs(outside, first), "the first shard goes on", 120)
    assert not runs(outside, second)
    assert f"{second.name}: passes over" in command("topology", "skip-statement", harness.name)
    command("apply")
    assert_eventually(lambda: runs(outside, second), "the second shard goes on", 120)
    assert f"No shard of {harness.name} stands" in command("topology", "skip-statement", harness.name)
    TopicCheck(harness).assert_agrees()
    # No row was read again.
    assert sum(TopicCheck(harness).ends().values()) == events + 20
