"""Faults between the control plane and real ZooKeeper, Kafka and Connect."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from cdc_platform.errors import LockLost, PlanStale, ZooKeeperUnavailable
from cdc_platform.model.agent_report import AgentReport
from cdc_platform.model.topology import Address, Cluster, Engine, Shard
from cdc_platform.planning.actions import CreateConnector, DeleteConnector
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.wiring import open_platform
from tests.clients.connect.wire_breaker import WireBreaker
from tests.control_plane.harness import Harness
from tests.engines import EACH_BINLOG
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack


@EACH_BINLOG
def test_control_plane_puts_right_what_a_hand_did_and_is_quiet_afterwards(harness: Harness) -> None:
    harness.add(3)
    harness.settle()
    names = [harness.shard_name(number) for number in range(3)]
    harness.call("DELETE", f"/connectors/{names[0]}")
    config = harness.get(f"/connectors/{names[1]}/config")
    harness.call("PUT", f"/connectors/{names[1]}/config", json={**config, "max.batch.size": "7"})
    harness.call("PUT", f"/connectors/{names[2]}/stop")
    report = harness.settle()
    assert report.sentence().startswith(f"Pass {report.number}: nothing to change; 3 of 3 shards up")
    assert harness.get(f"/connectors/{names[1]}/config") == config
    before = dict(harness.records())
    harness.reconcile()
    changed = {key for key, value in harness.records().items() if before.get(key) != value}
    assert changed == {"pass/last"}


def test_control_plane_with_an_unreachable_cluster_plans_nothing_for_it(harness: Harness) -> None:
    harness.add(2)
    harness.settle()
    topology = harness.platform.topology
    topology.put_cluster(Cluster(name="far", urls=("http://127.0.0.1:9",)))
    far = f"{harness.name}_far"
    credentials = harness.stack.credentials(Engine.MARIADB, far)
    topology.put_dataset(replace(harness.dataset, name=far, credentials=credentials, clusters=("far",)))
    topology.put_shard(replace(harness.shards()[0], dataset=far))
    harness.call("DELETE", f"/connectors/{harness.shard_name(1)}")

    def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from cdc_platform.cli.main import main; main()", "plan", *arguments],
            env={**harness.process_environment(), "CDC_PLATFORM_CONNECT_TIMEOUT": "5"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    found = plan("--json")
    document = json.loads(found.stdout)
    assert (found.returncode, document["exit_code"]) == (1, 1)
    assert [r["scope"] for r in document["refusals"]] == ["cluster far"]
    # The other cluster's work is planned, and nothing for the one that does not answer.
    assert {a.get("cluster") for a in document["actions"] if "connector" in a} == {"local"}
    assert "refused for cluster far" in document["sentence"]
    text = plan()
    assert text.returncode == 1
    assert "x refused for cluster far" in text.stdout
    assert harness.task_states(harness.shard_name(0)) == ["RUNNING"]


def test_control_plane_takes_no_half_an_answer_for_a_whole_one(harness: Harness) -> None:
    harness.add(3)
    harness.settle()
    address = urlsplit(harness.url())
    assert address.hostname is not None and address.port is not None
    with WireBreaker((address.hostname, address.port), keep=900, scheme=address.scheme) as wire:
        harness.platform.topology.put_cluster(replace(harness.clusters["local"], urls=(wire.url,)))
        with open_platform(replace(harness.settings, connect_timeout=6.0)) as platform:
            _, planned = reconciler.plan_pass(platform)
    assert [r.scope for r in planned.plan.refusals] == ["cluster local"]
    assert not [a for a in planned.plan.actions if isinstance(a, CreateConnector | DeleteConnector)]


def test_control_plane_makes_one_connector_of_a_create_whose_answer_was_lost(harness: Harness) -> None:
    harness.add(1)
    name = harness.shard_name(0)
    address = urlsplit(harness.url())
    assert address.hostname is not None and address.port is not None
    with WireBreaker((address.hostname, address.port), scheme=address.scheme) as wire:
        harness.platform.topology.put_cluster(replace(harness.clusters["local"], urls=(wire.url,)))

        def mute() -> None:
            # As soon as the create has come through, nothing of the answer does.
            assert_eventually(lambda: harness.get(f"/connectors/{name}"), f"{name} is made", 60)
            wire.mute = True

        thread = threading.Thread(target=mute)
        thread.start()
        with open_platform(replace(harness.settings, connect_timeout=8.0)) as platform:
            report = reconciler.reconcile(platform, owner="test", wait_for_lock=60.0)
        thread.join()
    assert {o.status for o in report.outcomes if isinstance(o.action, CreateConnector)} <= {"done", "failed"}
    harness.platform.topology.put_cluster(harness.clusters["local"])
    harness.settle()
    assert harness.task_states(name) == ["RUNNING"]


def test_control_plane_refuses_one_group_under_two_names(harness: Harness) -> None:
    harness.add(2)
    harness.settle()
    twin = replace(harness.clusters["local"], name="twin")
    harness.platform.topology.put_cluster(twin)
    harness.platform.topology.put_dataset(replace(harness.dataset, clusters=("twin", "local")))
    report = harness.reconcile()
    assert not [o for o in report.outcomes if hasattr(o.action, "name")]
    # The twin's workers show connectors that were made for `local`.
    assert "cluster twin" in {r.scope for r in report.plan.refusals}
    assert harness.task_states(harness.shard_name(0)) == ["RUNNING"]


def test_control_plane_switches_off_one_garbage_znode_of_ten_thousand(harness: Harness) -> None:
    harness.platform.topology.put_cluster(replace(harness.clusters["local"], capacity=20_000))
    topology = harness.platform.topology.load()
    shards = tuple(
        Shard(dataset=harness.name, id=f"{n:05d}", leader=Address(f"db-{n % 50}", 3306), database=f"{harness.name}_{n}")
        for n in range(10_000)
    )
    harness.platform.topology.import_topology(replace(topology, shards={harness.name: shards}))
    with harness.zookeeper() as client:
        path = f"{harness.settings.zookeeper_root}/datasets/{harness.name}/shards/04711"
        client.set(path, b'{"leader": "db-1:3306", \x00\xff garbage')
        started = time.monotonic()
        _, planned = reconciler.plan_pass(harness.platform)
        assert time.monotonic() - started < 60
    creates = [a for a in planned.plan.actions if isinstance(a, CreateConnector)]
    assert len(creates) == 9_999
    assert [r.scope for r in planned.plan.refusals] == [f"shard {harness.name}.04711"]
    assert planned.plan.exit_code == 1


def test_control_plane_refuses_a_topology_that_vanished_with_its_clusters(harness: Harness) -> None:
    harness.add(3)
    harness.settle()
    whole = harness.platform.topology.load()
    with harness.zookeeper() as client:
        for part in ("datasets", "clusters"):
            client.delete(f"{harness.settings.zookeeper_root}/{part}", recursive=True)
    for _ in range(2):  # nor does the pass that refused forget what was there
        report = harness.reconcile()
        assert not report.outcomes
        (refusal,) = report.plan.refusals
        assert refusal.scope == "platform"
        assert f"3 shards of dataset {harness.name}, 3 connectors in cluster local" in refusal.reason
    assert harness.task_states(harness.shard_name(0)) == ["RUNNING"]
    harness.platform.topology.import_topology(whole)
    harness.settle()


def test_control_plane_creates_nothing_before_the_agent_has_written_its_leader_file(harness: Harness) -> None:
    harness.add(1)
    harness.settle()
    store = harness.platform.topology
    worker = harness.get(f"/connectors/{harness.shard_name(0)}/status")["tasks"][0]["worker_id"]
    now = datetime.now(UTC)

    def report(synced: int) -> dict[str, Any]:
        return AgentReport(
            connect_worker=worker, connect_url=harness.url(), leader_dir="leaders", pid=1, host="here",
            started=now, reported=now, synced=synced, files=1,
        ).to_document()  # fmt: skip

    registration = store.register_agent("w0", report(0))
    try:
        harness.add(2)
        waiting = harness.reconcile()
        assert not [o for o in waiting.outcomes if isinstance(o.action, CreateConnector)]
        assert any(f"waits for the worker {worker}" in f.text for f in waiting.plan.findings)
        assert [d.reason for d in waiting.health[harness.name].down] == [
            f"waits for the worker {worker}: its agent has not written the leader file yet"
        ]
        registration.update(report(store.load().zxid))
        created = harness.reconcile()
        assert [o.status for o in created.outcomes if isinstance(o.action, CreateConnector)] == ["done"]
    finally:
        registration.close()
    harness.settle()


def test_control_plane_that_loses_its_session_stops_within_a_second(harness: Harness) -> None:
    harness.add(6)
    address = urlsplit(harness.url())
    assert address.hostname is not None and address.port is not None
    lost: list[float] = []
    breaker = WireBreaker((address.hostname, address.port), scheme=address.scheme)
    with harness.zookeeper() as client, breaker as wire:
        harness.platform.topology.put_cluster(replace(harness.clusters["local"], urls=(wire.url,)))

        def lose() -> None:
            # In mid-apply, with calls in flight that no answer comes to.
            assert_eventually(
                lambda: any(harness.get(f"/connectors/{s.name}") for s in harness.shards()), "one is made", 120
            )
            wire.mute = True
            path = f"{harness.settings.zookeeper_root}/control/lock"
            for contender in client.get_children(path):
                client.delete(f"{path}/{contender}")
            lost.append(time.monotonic())

        thread = threading.Thread(target=lose)
        thread.start()
        with open_platform(replace(harness.settings, batch_size=2)) as platform:
            with pytest.raises(LockLost):
                reconciler.reconcile(platform, owner="old", wait_for_lock=60.0)
            stopped = time.monotonic()
        thread.join()
    # A second, and what a loaded machine adds.
    assert stopped - lost[0] < 3.0
    made = {name for s in harness.shards() if harness.get(f"/connectors/{(name := s.name)}")}
    assert len(made) <= 4
    harness.platform.topology.put_cluster(harness.clusters["local"])
    harness.settle()


def test_control_plane_without_zookeeper_changes_nothing_and_says_so(harness: Harness) -> None:
    with (
        open_platform(replace(harness.settings, zookeeper="127.0.0.1:9")) as platform,
        pytest.raises(ZooKeeperUnavailable) as caught,
    ):
        reconciler.reconcile(platform, owner="test")
    assert caught.value.cure


def test_control_plane_refuses_a_stale_plan(harness: Harness) -> None:
    harness.add(2)
    harness.settle()
    harness.call("DELETE", f"/connectors/{harness.shard_name(0)}")
    _, planned = reconciler.plan_pass(harness.platform)
    harness.call("DELETE", f"/connectors/{harness.shard_name(1)}")
    with pytest.raises(PlanStale):
        harness.reconcile(expect=planned.plan.fingerprint)
    assert harness.get(f"/connectors/{harness.shard_name(0)}") is None
    harness.settle()


def test_control_plane_deletes_with_offsets_and_history_and_starts_anew_afterwards(harness: Harness) -> None:
    harness.add(2)
    harness.settle()
    name = harness.shard_name(1)
    assert_eventually(lambda: harness.get(f"/connectors/{name}/offsets")["offsets"], "offsets are committed")
    history = f"{harness.settings.platform}.platform.schema-history.{harness.name}-00001"
    assert history in harness.platform.kafka.topics([history])
    harness.platform.topology.delete_shard(harness.name, "00001")
    report = harness.reconcile()
    assert [o.status for o in report.outcomes if isinstance(o.action, DeleteConnector)] == ["done"]
    assert harness.get(f"/connectors/{name}") is None
    assert_eventually(lambda: history not in harness.platform.kafka.topics([history]), "its history topic is gone")
    assert not [key for key in harness.records() if key.endswith(f"/{name}")]
    harness.platform.connect(harness.clusters["local"]).create(
        name, {"connector.class": "io.debezium.connector.mariadb.MariaDbConnector", **_stopped(harness)}, stopped=True
    )
    assert harness.get(f"/connectors/{name}/offsets")["offsets"] == []
    harness.call("DELETE", f"/connectors/{name}")


def _stopped(harness: Harness) -> dict[str, str]:
    config: dict[str, str] = harness.get(f"/connectors/{harness.shard_name(0)}/config")
    text = json.dumps({key: value for key, value in config.items() if key != "name"})
    found: dict[str, str] = json.loads(text.replace("00000", "00001"))
    return found
