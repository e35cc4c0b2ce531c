"""What a connector goes on from is gone: it says so by name, one command cures it, and the proof holds again.

Changes between the saved position and the cure come as rows only: the last state of each, and no steps.
"""

from __future__ import annotations

import pytest

from cdc_platform.connectors.identity import identity
from cdc_platform.model.topology import Engine, Shard
from tests.engines import EACH_BINLOG
from tests.faults.conftest import MakeScenario
from tests.faults.scenario import Scenario
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@EACH_BINLOG
def test_faults_binlog_purged(assert_recovery: MakeScenario, engine: Engine) -> None:
    with assert_recovery(f"{engine}: binlog purged; bootstrap --lost", count=1, engine=engine) as run:
        with run.unread() as shard, run.harness.sources.admin() as sql:
            sql("FLUSH BINARY LOGS")
            last = sql("SHOW BINARY LOGS")[-1][0]

            def purged() -> bool:
                # A log that the replica still reads is kept.
                sql(f"PURGE BINARY LOGS TO '{last}'")
                return bool(sql("SHOW BINARY LOGS")[0][0] == last)

            assert_eventually(purged, "the older binlogs are gone", 60)
        cured(run, shard, "log-purged")


def test_faults_slot_dropped(assert_recovery: MakeScenario) -> None:
    with assert_recovery("Postgres: slot dropped; bootstrap --lost", count=1, engine=Engine.POSTGRES) as run:
        with run.unread() as shard:
            slot = identity(run.harness.settings, run.harness.dataset, shard).slot
            with run.harness.sources.admin() as sql:
                assert_eventually(
                    lambda: not sql("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND active", slot),
                    "the slot is not held",
                )
                sql("SELECT pg_drop_replication_slot(%s)", slot)
        cured(run, shard, "slot-missing")


@EACH_BINLOG
def test_faults_schema_history_lost(assert_recovery: MakeScenario, engine: Engine) -> None:
    name = f"{engine}: schema history topic deleted; bootstrap --lost"
    with assert_recovery(name, count=1, engine=engine) as run:
        with run.unread() as shard:
            topic = identity(run.harness.settings, run.harness.dataset, shard).schema_history_topic
            assert topic is not None
            run.harness.platform.kafka.delete_topics([topic])
        cured(run, shard, "schema-history")


def cured(run: Scenario, shard: Shard, trouble: str) -> None:
    """The trouble is named, and its one command ends it."""
    assert_eventually(lambda: trouble in run.told_by("status", run.harness.name), f"status names {trouble}")
    run.over()
    done = run.command("bootstrap", run.harness.name, "--lost")
    run.note = f"named {trouble}; {done.splitlines()[-1]}"
