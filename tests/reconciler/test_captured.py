"""Where each shard ran last is on record: a cluster that cannot be looked at may still run it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from cdc_platform.model.topology import Topology
from cdc_platform.reconciler.state_records import captured_documents
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
