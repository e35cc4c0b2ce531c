"""A table that cannot be captured costs itself, never its shard, and its application nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cdc_platform.connectors.tables import INCLUDE_LIST
from cdc_platform.model.topology import Engine
from cdc_platform.planning.actions import UpdateConnector
from cdc_platform.planning.health.source_hazard_kinds import HazardKind
from cdc_platform.planning.health.source_hazards import SourceRecord
from cdc_platform.reconciler.run_pass import reconcile
from cdc_platform.reconciler.source_round import of_dataset
from cdc_platform.reconciler.state_records import read_memory
from cdc_platform.snapshots.ports import SnapshotPorts
from cdc_platform.snapshots.run_records import watermarks
from tests.snapshots.conftest import MakeHarness, bootstrap, go
from tests.snapshots.harness import Harness, TopicCheck
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]
ENGINES = pytest.mark.parametrize("engine", list(Engine), ids=str)


class Unfit(Harness):
    """`items` can be captured, `notes` cannot."""

    def create(self, run: Callable[..., Any], table: str) -> None:
        super().create(run, table)
        if table != "notes":
            return
        if self.engine is Engine.POSTGRES:
            run("ALTER TABLE notes REPLICA IDENTITY DEFAULT, DROP CONSTRAINT notes_pkey")
            run("ALTER TABLE notes ADD PRIMARY KEY (id) DEFERRABLE")
        else:
            run("ALTER TABLE notes ADD at timestamp(3) NOT NULL DEFAULT '2020-01-01 00:00:00.5'")
            run("ALTER TABLE notes DROP PRIMARY KEY, ADD PRIMARY KEY (id, at)")

    def cure(self, run: Callable[..., Any]) -> None:
        if self.engine is Engine.POSTGRES:
            run("ALTER TABLE notes REPLICA IDENTITY FULL")
        else:
            run("ALTER TABLE notes DROP PRIMARY KEY, ADD PRIMARY KEY (id)")

    def record(self, outside: SnapshotPorts) -> SourceRecord:
        return read_memory(outside.platform.state.read()).of(SourceRecord)[self.shards[0].name]

    def captured(self, outside: SnapshotPorts) -> str:
        """The tables that the connector's configuration names."""
        connectors = outside.platform.connect(self.stack.cluster()).connectors()
        return connectors[self.shards[0].name].config[INCLUDE_LIST]


@pytest.fixture
def unfit(make_harness: MakeHarness, monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], Unfit]:
    def make(engine: Engine) -> Unfit:
        monkeypatch.setattr("tests.snapshots.conftest.Harness", Unfit)
        harness = make_harness(engine, count=1, rows=60)
        assert isinstance(harness, Unfit)
        return harness

    return make


@ENGINES
def test_an_unfit_table_is_left_out_named_and_captured_once_it_is_cured(
    engine: Engine, unfit: Callable[[Engine], Unfit], outside: SnapshotPorts
) -> None:
    world = unfit(engine)
    (shard,) = world.shards
    report = reconcile(outside.platform, owner="test", wait_for_lock=60.0)
    assert report.failed == ()
    assert "items" in world.captured(outside) and "notes" not in world.captured(outside)
    (hazard,) = [one for one in world.record(outside).hazards if one.kind is HazardKind.LEFT_OUT]
    assert hazard.table == "notes" and "notes is not captured: its " in hazard.text
    assert any("notes is not captured" in finding.text for finding in report.plan.findings)

    run, notes = go(outside, bootstrap(world), "b1")
    assert run.failed == 1 and "notes was not read: it is not captured: its " in str(notes.done[0].error)
    marks = watermarks(outside.platform.state.read(), world.name)
    assert marks["items", shard.id].complete and ("notes", shard.id) not in marks

    with world.admin(shard.database) as application:
        application("UPDATE notes SET v = 7 WHERE id = 1")
        application("DELETE FROM notes WHERE id = 2")
        application("UPDATE items SET v = 7 WHERE id = 1")
        assert_eventually(lambda: TopicCheck(world).fold("items")[shard.id][1] == 7, "the other table's change", 60)
        world.cure(application)
        report = reconcile(outside.platform, owner="test", wait_for_lock=60.0, asked=of_dataset(world.name))
        assert UpdateConnector in {type(action) for action in report.plan.actions} and report.failed == ()
        assert "notes" in world.captured(outside) and not world.record(outside).left_out
        assert {gap.table for gap in world.record(outside).gaps} <= {"notes"}

        def captured() -> bool:
            application("UPDATE notes SET v = v + 1 WHERE id = 3")
            return 3 in TopicCheck(world).fold("notes").get(shard.id, {})

        assert_eventually(captured, "a change of the table that was left out", 90, pause=1.0)


@ENGINES
def test_a_bootstrap_that_meets_an_unfit_table_first_reads_the_others(
    engine: Engine, unfit: Callable[[Engine], Unfit], outside: SnapshotPorts
) -> None:
    world = unfit(engine)
    run, notes = go(outside, bootstrap(world), "b1")
    assert run.failed == 1 and "notes was not read: it is not captured: its " in str(notes.done[0].error)
    assert len(TopicCheck(world).fold("items")[world.shards[0].id]) == 60
    report = reconcile(outside.platform, owner="test", wait_for_lock=60.0, asked=of_dataset(world.name))
    assert report.failed == () and "notes" not in world.captured(outside)
    assert world.record(outside).left_out.keys() == {"notes"}
