"""Whole passes in memory: lanes, deletes, restarts, takeover, records."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cdc_platform.errors import (
    ConnectRebalancing,
    ConnectUnavailable,
    KafkaUnavailable,
    PlanStale,
    ZooKeeperUnavailable,
)
from cdc_platform.model.topology import Pause, Topology
from cdc_platform.planning.actions import DeleteConnector, RestartConnector, UpdateConnector
from cdc_platform.planning.canary import RolloutPolicy
from cdc_platform.planning.memory import Memory
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.last_pass import quantiles
from cdc_platform.reconciler.state_records import read_memory
from tests.reconciler.harness import Harness, KillAt, Killed, cluster, dataset, shards


def settled(*names: str, count: int = 4, **fields: Any) -> Harness:
    """A harness whose shards are captured and have beaten."""
    harness = Harness(*names)
    harness.put(
        Topology(
            datasets={f"d{at}": dataset(f"d{at}", (name,), **fields) for at, name in enumerate(names)},
            shards={f"d{at}": shards(f"d{at}", count) for at in range(len(names))},
            clusters={name: cluster(name) for name in names},
        )
    )
    for _ in range(3):
        assert not harness.reconcile().failed
    return harness


def test_a_pass_with_nothing_to_change_writes_only_its_own_record() -> None:
    harness = settled("east")
    written: list[str] = []
    harness.after = lambda verb, name: written.append(f"{verb} {name}")
    report = harness.reconcile()
    assert written == ["write pass/last"]
    assert report.sentence().startswith(f"Pass {report.number}: nothing to change; 4 of 4 shards up")


def test_an_unreachable_cluster_costs_only_its_own_shards() -> None:
    harness = settled("east", "west")
    for client in harness.connect.values():
        client.model.fail_task("d0.00001" if client.name == "east" else "d1.00001", "java.lang.IllegalStateException")
    harness.connect["west"].outage = ConnectUnavailable("no worker answers.")
    report = harness.reconcile()
    assert [o.action.name for o in report.outcomes if isinstance(o.action, RestartConnector)] == ["d0.00001"]
    assert [r.scope for r in report.plan.refusals] == ["cluster west"]
    assert report.plan.exit_code == 1
    assert {down.state for down in report.health["d1"].down} == {"UNKNOWN"}


def test_a_cluster_that_stops_answering_in_mid_pass_does_not_hold_up_the_others() -> None:
    harness = Harness("east", "west")
    both = {"east": cluster("east"), "west": cluster("west")}
    datasets = {"pins": dataset("pins", ("east",)), "orders": dataset("orders", ("west",))}
    harness.put(Topology(datasets=datasets, shards={n: shards(n, 120) for n in ("pins", "orders")}, clusters=both))

    def after(verb: str, name: str) -> None:
        if verb == "create" and name.startswith("pins"):
            harness.connect["east"].outage = ConnectUnavailable("no worker answers.")

    harness.after = after
    report = harness.reconcile()
    assert len(harness.connect["west"].connectors()) == 120
    skipped = [o for o in report.outcomes if o.status == "skipped"]
    assert skipped
    assert all("does not answer" in str(o.error) for o in skipped)
    harness.connect["east"].outage = None
    harness.after = lambda verb, name: None
    assert not harness.reconcile().failed
    assert len(harness.connect["east"].connectors()) == 120


def test_a_cluster_that_rebalances_without_end_costs_one_batch_and_not_the_pass() -> None:
    harness = settled("east", "west", count=60)
    names = [f"d0.{n:05d}" for n in range(60)]
    for name in names:
        client = harness.connect["east"]
        client.update(name, {**client.connectors()[name].config, "tasks.max": "4"})
    tried: list[str] = []
    update = type(harness.connect["east"]).update

    def rebalancing(client: Any, name: str, config: Any) -> None:
        if client.name == "east":
            tried.append(name)
            raise ConnectRebalancing("Cannot complete request because of a conflicting operation.")
        update(client, name, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(harness.connect["east"]), "update", rebalancing)
        report = harness.reconcile(policy=harness.policy(rollout=RolloutPolicy(smallest=1000)))
    assert 0 < len(tried) <= 25
    assert len([o for o in report.outcomes if o.status == "skipped" and "rebalances" in str(o.error)]) == 60 - len(
        tried
    )
    assert {health.up for health in report.health.values()} == {60}


def test_a_delete_takes_offsets_and_history_along_and_forgets_what_was_remembered() -> None:
    harness = settled("east")
    name = "d0.00003"
    harness.connect["east"].model.commit_offsets(name, [{"partition": {"server": name}, "offset": {"pos": 1}}])
    assert any(key.endswith(f"/{name}") for key in harness.records())
    harness.control_plane().topology.delete_shard("d0", "00003")
    report = harness.reconcile()
    (outcome,) = (o for o in report.outcomes if isinstance(o.action, DeleteConnector))
    assert outcome.status == "done"
    assert name not in harness.connect["east"].connectors()
    assert not any(key.endswith(f"/{name}") for key in harness.records())
    assert not [topic for topic in harness.kafka.topics() if "d0-00003" in topic]
    store = harness.control_plane().topology
    store.put_shard(shards("d0", 4)[3])
    harness.reconcile()
    assert harness.connect["east"].offsets(name) == []


def test_the_delete_of_a_postgres_shard_says_how_to_drop_its_slot() -> None:
    from cdc_platform.model.topology import Engine, Table

    harness = settled("east", engine=Engine.POSTGRES, tables=(Table(name="orders", schema="public"),))
    harness.control_plane().topology.delete_shard("d0", "00003")
    report = harness.reconcile()
    (outcome,) = report.outcomes
    assert "pg_drop_replication_slot" in outcome.sentence()


def test_pauses_hold_in_a_pass_and_are_told() -> None:
    harness = settled("east")
    harness.connect["east"].model.fail_task("d0.00001", "boom")
    store = harness.control_plane().topology
    until = datetime.now(UTC) + timedelta(hours=1)
    for dataset_name, shard in ((None, None), ("d0", None), ("d0", "00001")):
        store.set_pause(dataset_name, shard, Pause(reason="maintenance", author="ann", until=until))
        report = harness.reconcile()
        assert not report.outcomes
        assert any("paused by ann until" in finding.text for finding in report.plan.findings)
        store.set_pause(dataset_name, shard, None)
    assert len(harness.reconcile().outcomes) == 1


def test_a_plan_that_the_world_overtook_is_refused() -> None:
    harness = settled("east")
    harness.connect["east"].delete("d0.00001")
    _, planned = reconciler.plan_pass(harness.control_plane())
    harness.connect["east"].delete("d0.00002")
    with pytest.raises(PlanStale):
        harness.reconcile(expect=planned.plan.fingerprint)
    assert "d0.00001" not in harness.connect["east"].connectors()


def test_without_zookeeper_there_is_no_pass_and_without_kafka_no_record_is_pretended() -> None:
    harness = settled("east")
    harness.zookeeper.down = True
    with pytest.raises(ZooKeeperUnavailable):
        harness.reconcile()
    harness.zookeeper.down = False
    harness.kafka.outage = KafkaUnavailable("away.")
    report = harness.reconcile()
    assert [r.scope for r in report.plan.refusals] == ["kafka"]


def test_unreadable_heartbeats_and_metrics_stop_no_pass() -> None:
    harness = settled("east")
    harness.heartbeats.outage = KafkaUnavailable("away.")
    report = harness.reconcile()
    assert not report.outcomes
    assert any("heartbeats could not be read" in f.text for f in report.plan.findings)


@pytest.mark.parametrize("step", range(1, 10))
def test_killed_anywhere_at_most_one_call_is_repeated_and_none_is_lost(step: int) -> None:
    harness = settled("east", count=6)
    failed = [f"d0.{n:05d}" for n in range(3)]
    for name in failed:
        harness.connect["east"].model.fail_task(name, "java.lang.IllegalStateException: x")
    harness.connect["east"].delete("d0.00005")
    kill = KillAt(step)
    harness.after = kill
    with contextlib.suppress(Killed):
        harness.reconcile()
    # Connect shows a restarted task RUNNING at once; here it dies again, so that only the record holds us back.
    restarted = [name for verb, name in kill.done if verb == "restart_failed"]
    for name in restarted:
        harness.connect["east"].model.fail_task(name, "java.lang.IllegalStateException: x")
    kill.left = 10**9
    harness.reconcile()
    calls = [(verb, name) for verb, name in kill.done if verb not in ("write",)]
    repeated = {call: calls.count(call) for call in calls if calls.count(call) > 1}
    assert sum(number - 1 for number in repeated.values()) <= 1, calls
    assert {name for verb, name in calls if verb == "restart_failed"} == set(failed)
    assert "d0.00005" in harness.connect["east"].connectors()


def test_drift_made_by_hand_is_put_right_each_pass() -> None:
    harness = settled("east")
    client = harness.connect["east"]
    config = dict(client.connectors()["d0.00001"].config)
    client.update("d0.00001", {**config, "tasks.max": "4"})
    report = harness.reconcile()
    (update,) = (o.action for o in report.outcomes if isinstance(o.action, UpdateConnector))
    assert dict(update.changes) == {"tasks.max": ("4", "1")}
    assert client.connectors()["d0.00001"].config["tasks.max"] == "1"
    client.pause("d0.00002")
    harness.reconcile()
    assert client.connectors()["d0.00002"].state == "RUNNING"


def test_the_last_pass_is_on_record_and_its_totals_go_on() -> None:
    harness = settled("east")
    for _ in range(2):
        harness.connect["east"].model.fail_task("d0.00001", "boom")
        harness.connect["east"].model.fail_task("d0.00002", "boom")
        harness.reconcile()
    last = harness.records()["pass/last"]
    assert last["totals"]["restarts"] == {"unknown": 2}
    assert last["totals"]["passes"] == 5
    assert last["datasets"]["d0"]["shards"] == 4
    assert set(last["datasets"]["d0"]["beat_s"]) == {"0.5", "0.9", "0.99", "1.0"}
    assert set(last["clusters"]["east"]["workers"]) <= {"east-w0:8083", "east-w1:8083"}
    assert last["seconds"].keys() == {"look", "plan", "apply", "report"}


def test_a_record_of_another_shape_is_left_out() -> None:
    memory = read_memory({"restart/pins.1": {"nonsense": 1}, "size/cluster/a": {"connectors": "x"}, "other/x": {}})
    assert memory == Memory()


def test_quantiles_are_values_that_were_seen() -> None:
    assert quantiles([]) == {}
    assert quantiles([3.0, 1.0, 2.0]) == {"0.5": 2.0, "0.9": 3.0, "0.99": 3.0, "1.0": 3.0}


def test_a_budget_that_is_used_up_leaves_the_rest_to_the_next_pass() -> None:
    harness = Harness("east")
    harness.put(
        Topology(
            datasets={"pins": dataset(clusters=("east",))},
            shards={"pins": shards("pins", 5)},
            clusters={"east": cluster("east")},
        )
    )
    harness.settings = replace(harness.settings, pass_budget=0.0)
    report = harness.reconcile()
    assert {o.status for o in report.outcomes if hasattr(o.action, "name")} == {"skipped"}
    harness.settings = replace(harness.settings, pass_budget=60.0)
    harness.reconcile()
    assert len(harness.connect["east"].connectors()) == 5
