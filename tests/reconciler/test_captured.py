"""Where each shard ran last is on record: a cluster that cannot be looked at may still run it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cdc_platform.alerting.conditions import recorded_conditions
from cdc_platform.model.alert_messages import Severity
from cdc_platform.model.topology import Topology
from cdc_platform.planning.actions import CreateConnector, DeleteConnector
from cdc_platform.reconciler.report import PassReport
from cdc_platform.reconciler.state_records import captured_documents
from cdc_platform.testing.zookeeper import InMemoryTopologyStore
from tests.reconciler.harness import Harness, cluster, dataset, shards


def test_a_move_changes_the_record_and_not_its_beginning() -> None:
    harness = Harness("east", "west")
    clusters = {name: cluster(name) for name in ("east", "west")}
    harness.put(Topology(datasets={"pins": dataset()}, shards={"pins": shards("pins", 1)}, clusters=clusters))
    store = harness.control_plane().topology
    store.put_cluster(replace(clusters["west"], draining=True))
    for _ in range(3):
        harness.reconcile()
    before = harness.records()["shard/pins.00000"]
    assert before["cluster"] == "east"
    store.put_cluster(clusters["west"])
    store.put_cluster(replace(clusters["east"], draining=True))
    reports = [harness.reconcile() for _ in range(2)]
    assert harness.running("pins.00000") == ["west"]
    assert harness.records()["shard/pins.00000"] == {**before, "cluster": "west"}
    # It is not captured for the first time: Dagster is told nothing.
    assert [report.captured for report in reports] == [(), ()]
    written: list[str] = []
    harness.after = lambda verb, name: written.append(name)
    harness.reconcile()
    assert written == ["pass/last"]


def test_a_record_of_another_shape_is_written_anew() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    found = captured_documents({"pins.00000": "east"}, {"shard/pins.00000": {"nonsense": 1}}, now, 7)
    assert found["shard/pins.00000"] == {"since": "2026-01-01T00:00:00Z", "generation": 7, "cluster": "east"}


MAIN = Topology(
    datasets={"d": dataset("d", ("main",))}, shards={"d": shards("d", 3)}, clusters={"main": cluster("main")}
)


def told(report: PassReport) -> list[str]:
    return [finding.text for finding in report.plan.findings if "deleted" in finding.text]


def test_connectors_that_somebody_else_deletes_are_told_and_alerted() -> None:
    harness = Harness("main")
    harness.put(MAIN)
    for _ in range(2):
        report = harness.reconcile()
    assert not told(report)
    seen = []
    for _ in range(2):
        for name in ("d.00000", "d.00001"):
            harness.connect["main"].delete(name)
        report = harness.reconcile()
        assert "another program deleted 2 connectors (d.00000, d.00001)" in told(report)[0]
        topology = harness.control_plane().topology.load()
        found = recorded_conditions(harness.records(), topology, harness.settings, datetime.now(UTC), timedelta())
        seen.append(found["deleted/d"].severity)
    assert seen == [Severity.WARNING, Severity.CRITICAL]
    assert told(harness.reconcile())  # it lasts an hour


def test_a_shard_whose_connector_a_pass_deleted_was_deleted_by_nobody_else() -> None:
    harness = Harness("main")
    harness.put(MAIN)
    for _ in range(2):
        harness.reconcile()
    store = InMemoryTopologyStore(harness.zookeeper)
    store.delete_shard("d", "00002")
    assert [type(action) for action in harness.reconcile().plan.actions] == [DeleteConnector]
    harness.put(MAIN)
    report = harness.reconcile()
    assert [type(action) for action in report.plan.actions][-1] is CreateConnector and not told(report)
