"""Liveness beyond REST, restarts, canaries and zombies on real Debezium."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import cast

import httpx
import pytest
from confluent_kafka import Producer

from cdc_platform.connectors.routing import WORKER_HEADER
from cdc_platform.model.topology import Address
from cdc_platform.planning.actions import ConnectorAction, RestartConnector, StopAndResumeConnector
from cdc_platform.planning.canary import RolloutPolicy
from cdc_platform.planning.health.duplicate_tasks import ZombiePolicy
from cdc_platform.planning.health.failures import Failure
from cdc_platform.planning.health.liveness import LivenessPolicy
from cdc_platform.planning.inputs import PassPolicy
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.report import ActionOutcome
from tests.control_plane.harness import Harness
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@contextmanager
def behind_a_proxy(harness: Harness, number: int) -> Iterator[TcpProxy]:
    """One shard whose source is reached through a wire that a test can break."""
    primary = harness.stack.mariadb_primary
    with TcpProxy((primary.host, primary.port)) as proxy:
        shard = harness.shards()[number]
        moved = replace(shard, leader=Address.parse(proxy.address))
        harness.write_leader(moved)
        harness.platform.topology.set_leader(harness.name, shard.id, moved.leader)
        yield proxy


def test_control_plane_sees_a_dead_source_that_connect_calls_running(harness: Harness) -> None:
    harness.add(2)
    with behind_a_proxy(harness, 0) as proxy:
        harness.settle()
        name = harness.shard_name(0)
        proxy.stall()
        policy = harness.policy()
        policy = replace(policy, liveness=LivenessPolicy(silence=timedelta(seconds=20), leader_move=timedelta()))

        def dead() -> str | None:
            report = harness.reconcile(policy=policy)
            return next((d.reason for d in report.health[harness.name].down if d.shard == name), None)

        reason = assert_eventually(dead, "the shard is seen as dead")
        assert "heartbeat" in reason or "FAILED" in reason
        assert harness.task_states(harness.shard_name(1)) == ["RUNNING"]
        restarted = assert_eventually(
            lambda: [
                o.action
                for o in harness.reconcile(policy=policy).outcomes
                if isinstance(o.action, RestartConnector) and o.action.name == name
            ],
            "it is restarted",
        )
        assert restarted[0].failure in (Failure.STUCK, Failure.CONNECTION, Failure.UNKNOWN)
        assert [r for r in harness.records() if r.startswith("trouble/")]
        proxy.resume()
        assert_eventually(
            lambda: all(h.up == h.shards for h in harness.reconcile(policy=policy).health.values()), "all are up", 300
        )


def test_control_plane_restarts_a_failed_task_with_backoff_and_tells_one_trouble(harness: Harness) -> None:
    shards = harness.add(3)
    harness.settle()
    name = harness.shard_name(0)
    # Nobody listens there: MariaDB's connector reconnects for ever to a wire that was cut.
    harness.write_leader(replace(shards[0], leader=Address("127.0.0.1", 1)))
    harness.call("POST", f"/connectors/{name}/tasks/0/restart")
    assert_eventually(lambda: harness.task_states(name) == ["FAILED"], "the task fails")

    def restarts() -> list[RestartConnector]:
        outcomes = harness.reconcile().outcomes
        return [o.action for o in outcomes if isinstance(o.action, RestartConnector) and o.status == "done"]

    first = assert_eventually(restarts, "it is restarted")
    assert [(action.name, action.attempt, action.failure) for action in first] == [(name, 1, Failure.CONNECTION)]
    assert harness.records()[f"restart/{name}"]["attempts"] == 1
    # In the next passes it waits, and says until when.
    for _ in range(3):
        report = harness.reconcile()
        assert not [o for o in report.outcomes if isinstance(o.action, RestartConnector)]
    assert_eventually(lambda: harness.task_states(name) == ["FAILED"], "it fails again")
    (down,) = harness.reconcile().health[harness.name].down
    assert down.shard == name
    assert "backing off" in down.reason
    assert [key for key in harness.records() if key.startswith("trouble/")] == [
        f"trouble/connection@{shards[0].leader}"
    ]
    told = subprocess.run(
        [sys.executable, "-c", "from cdc_platform.cli.main import main; main()", "status", harness.name, "00000"],
        env=harness.process_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 2, told.stderr
    assert f"{name} is FAILED: Connect says FAILED; connection: backing off" in told.stdout
    assert f"trouble: 1 shard is down ({name}): connection at {shards[0].leader}" in told.stdout
    assert "next: it is not restarted before" in told.stdout
    assert "Connection refused" in told.stdout
    for number in (1, 2):
        assert harness.task_states(harness.shard_name(number)) == ["RUNNING"]
    # The right address, and the next attempt that is due cures it by itself.
    harness.write_leader(shards[0])
    second = assert_eventually(restarts, "the second restart comes in its time", 300)
    assert [(action.name, action.attempt) for action in second] == [(name, 2)]
    assert_eventually(lambda: _up(harness, harness.policy()), "all are up")


def test_control_plane_rolls_a_failing_canary_back_and_holds_the_change(harness: Harness) -> None:
    harness.add(4)
    policy = replace(harness.policy(), rollout=RolloutPolicy(smallest=2, canaries=1, passes=2, watch=timedelta()))
    harness.settle(policy=policy)
    bad = {"producer.override.max.request.size": "1"}
    harness.platform.topology.put_dataset(replace(harness.dataset, connector=bad))
    report = harness.reconcile(policy=policy)
    (update,) = (o.action for o in report.outcomes if isinstance(o.action, ConnectorAction))
    canary = update.name
    assert_eventually(lambda: harness.task_states(canary) == ["FAILED"], "the canary fails", 240)

    def rolled_back() -> bool:
        found = harness.reconcile(policy=policy)
        config = harness.get(f"/connectors/{canary}/config")
        held = any("failed on a canary and is held" in f.text for f in found.plan.findings)
        return held and config["producer.override.max.request.size"] != "1"

    assert_eventually(rolled_back, "the canary is rolled back")
    others = [s.name for s in harness.shards() if s.name != canary]
    for name in others:
        assert harness.get(f"/connectors/{name}/config")["producer.override.max.request.size"] != "1"
        assert harness.task_states(name) == ["RUNNING"]
    good = {"poll.interval.ms": "250"}
    harness.platform.topology.put_dataset(replace(harness.dataset, connector=good))
    assert_eventually(
        lambda: (
            harness.reconcile(policy=policy)
            and all(
                harness.get(f"/connectors/{s.name}/config").get("poll.interval.ms") == "250" for s in harness.shards()
            )
        ),
        "a good change goes to the canary and then to all",
        300,
    )
    assert_eventually(lambda: _up(harness, policy), "all are up")
    assert "canary/" + harness.name not in harness.records()


def test_control_plane_bounces_a_task_whose_heartbeats_come_from_two_workers(harness: Harness) -> None:
    harness.add(2)
    harness.settle()
    name = harness.shard_name(0)
    policy = replace(
        harness.policy(), zombies=ZombiePolicy(overlap=timedelta(seconds=12), confirmed=timedelta(seconds=5))
    )
    producer = Producer(dict(harness.settings.kafka))
    bounced: list[ActionOutcome] = []

    def forged() -> bool:
        """A second worker beats for the shard, as one would that was never told to stop."""
        producer.produce(
            harness.settings.heartbeat_topic,
            partition=0,
            key=json.dumps({"serverName": name}).encode(),
            value=b'{"ts_ms": 1}',
            headers=[(WORKER_HEADER, b"zombie")],
        )
        producer.flush(30)
        report = harness.reconcile(policy=policy)
        bounced.extend(o for o in report.outcomes if isinstance(o.action, StopAndResumeConnector))
        return bool(bounced)

    assert_eventually(forged, "the task is stopped and resumed")
    assert [(cast(StopAndResumeConnector, o.action).name, o.status) for o in bounced] == [(name, "done")]
    assert "heartbeats from" in bounced[0].sentence()
    assert_eventually(lambda: harness.task_states(name) == ["RUNNING"], "it runs again")
    assert harness.records()[f"zombie/{name}"]["bounces"] == 1


def test_control_plane_picture_has_metrics_of_all_workers_and_heartbeats_of_all_shards(harness: Harness) -> None:
    harness.add(3)
    harness.settle()
    picture, _ = reconciler.plan_pass(harness.platform)
    assert set(picture.workers) == set(harness.stack.metrics_urls)
    for worker in picture.workers.values():
        assert worker.problem is None
        assert worker.heap_used and worker.heap_max and worker.heap_used < worker.heap_max
        assert worker.rebalances is not None and worker.tasks is not None
    streaming = frozenset[str]().union(*(w.streaming for w in picture.workers.values()))
    assert {s.name for s in harness.shards()} <= streaming
    assert picture.heartbeats is not None
    assert set(picture.heartbeats.beats) == {s.name for s in harness.shards()}
    senders = {sender for beats in picture.heartbeats.beats.values() for sender in beats.senders}
    assert senders <= set(harness.stack.workers)


def test_control_plane_exporter_serves_what_the_last_pass_recorded(harness: Harness) -> None:
    harness.add(1)
    harness.settle()
    process = subprocess.Popen(
        [sys.executable, "-c", "from cdc_platform.cli.main import main; main()", "exporter", "--port", "0"],
        env=harness.process_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        text = httpx.get(url, timeout=60).text
        assert f'cdc_shards{{dataset="{harness.name}",state="RUNNING"}} 1.0' in text
        assert 'cdc_cluster_reachable{cluster="local"} 1.0' in text
        age = time.time() - float(text.split("\ncdc_last_pass_timestamp_seconds ")[1].split()[0])
        assert 0 <= age < 120
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _up(harness: Harness, policy: PassPolicy) -> bool:
    return all(h.up == h.shards for h in harness.reconcile(policy=policy).health.values())
