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
from cdc_platform.model.topology import Address, Cluster, Shard
from cdc_platform.planning.actions import CreateConnector, DeleteConnector
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.wiring import open_platform
from tests.clients.connect.wire_breaker import WireBreaker
from tests.control_plane.ground import Ground
from tests.waiting import assert_eventually

pytestmark = pytest.mark.stack


def test_control_plane_puts_right_what_a_hand_did_and_is_quiet_afterwards(ground: Ground) -> None:
    ground.add(3)
    ground.settle()
    names = [ground.shard_name(number) for number in range(3)]
    ground.call("DELETE", f"/connectors/{names[0]}")
    config = ground.get(f"/connectors/{names[1]}/config")
    ground.call("PUT", f"/connectors/{names[1]}/config", json={**config, "max.batch.size": "7"})
    ground.call("PUT", f"/connectors/{names[2]}/stop")
    report = ground.settle()
    assert report.sentence().startswith(f"Pass {report.generation}: nothing to change; 3 of 3 shards up")
    assert ground.get(f"/connectors/{names[1]}/config") == config
    before = dict(ground.records())
    ground.reconcile()
    changed = {key for key, value in ground.records().items() if before.get(key) != value}
    assert changed == {"pass/last"}


def test_control_plane_with_an_unreachable_cluster_plans_nothing_for_it(ground: Ground) -> None:
    ground.add(2)
    ground.settle()
    topology = ground.platform.topology
    topology.put_cluster(Cluster(name="far", urls=("http://127.0.0.1:9",)))
    topology.put_dataset(replace(ground.dataset, name=f"{ground.name}_far", clusters=("far",)))
    topology.put_shard(replace(ground.shards()[0], dataset=f"{ground.name}_far"))
    ground.call("DELETE", f"/connectors/{ground.shard_name(1)}")

    def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from cdc_platform.cli.main import main; main()", "plan", *arguments],
            env={**ground.process_environment(), "CDC_PLATFORM_CONNECT_TIMEOUT": "5"},
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
    assert ground.task_states(ground.shard_name(0)) == ["RUNNING"]


def test_control_plane_takes_no_half_an_answer_for_a_whole_one(ground: Ground) -> None:
    ground.add(3)
    ground.settle()
    address = urlsplit(ground.url())
    assert address.hostname is not None and address.port is not None
    with WireBreaker((address.hostname, address.port), keep=900, scheme=address.scheme) as wire:
        ground.platform.topology.put_cluster(replace(ground.clusters["local"], urls=(wire.url,)))
        with open_platform(replace(ground.settings, connect_timeout=6.0)) as platform:
            _, planned = reconciler.plan_pass(platform)
    assert [r.scope for r in planned.plan.refusals] == ["cluster local"]
    assert not [a for a in planned.plan.actions if isinstance(a, CreateConnector | DeleteConnector)]


def test_control_plane_makes_one_connector_of_a_create_whose_answer_was_lost(ground: Ground) -> None:
    ground.add(1)
    name = ground.shard_name(0)
    address = urlsplit(ground.url())
    assert address.hostname is not None and address.port is not None
    with WireBreaker((address.hostname, address.port), scheme=address.scheme) as wire:
        ground.platform.topology.put_cluster(replace(ground.clusters["local"], urls=(wire.url,)))

        def mute() -> None:
            # As soon as the create has come through, nothing of the answer does.
            assert_eventually(lambda: ground.get(f"/connectors/{name}"), f"{name} is made", 60)
            wire.mute = True

        thread = threading.Thread(target=mute)
        thread.start()
        with open_platform(replace(ground.settings, connect_timeout=8.0)) as platform:
            report = reconciler.reconcile(platform, owner="test", wait_for_lock=60.0)
        thread.join()
    assert {o.status for o in report.outcomes if isinstance(o.action, CreateConnector)} <= {"done", "failed"}
    ground.platform.topology.put_cluster(ground.clusters["local"])
    ground.settle()
    assert ground.task_states(name) == ["RUNNING"]


def test_control_plane_refuses_one_group_under_two_names(ground: Ground) -> None:
    ground.add(2)
    ground.settle()
    twin = replace(ground.clusters["local"], name="twin")
    ground.platform.topology.put_cluster(twin)
    ground.platform.topology.put_dataset(replace(ground.dataset, clusters=("twin", "local")))
    report = ground.reconcile()
    assert not [o for o in report.outcomes if hasattr(o.action, "name")]
    # The twin's workers show connectors that were made for `local`.
    assert "cluster twin" in {r.scope for r in report.plan.refusals}
    assert ground.task_states(ground.shard_name(0)) == ["RUNNING"]


def test_control_plane_switches_off_one_garbage_znode_of_ten_thousand(ground: Ground) -> None:
    ground.platform.topology.put_cluster(replace(ground.clusters["local"], capacity=20_000))
    topology = ground.platform.topology.load()
    shards = tuple(
        Shard(dataset=ground.name, id=f"{n:05d}", leader=Address(f"db-{n % 50}", 3306), database=f"{ground.name}_{n}")
        for n in range(10_000)
    )
    ground.platform.topology.import_topology(replace(topology, shards={ground.name: shards}))
    with ground.zookeeper() as client:
        path = f"{ground.settings.zookeeper_root}/datasets/{ground.name}/shards/04711"
        client.set(path, b'{"leader": "db-1:3306", \x00\xff garbage')
        started = time.monotonic()
        _, planned = reconciler.plan_pass(ground.platform)
        assert time.monotonic() - started < 60
    creates = [a for a in planned.plan.actions if isinstance(a, CreateConnector)]
    assert len(creates) == 9_999
    assert [r.scope for r in planned.plan.refusals] == [f"shard {ground.name}.04711"]
    assert planned.plan.exit_code == 1


def test_control_plane_refuses_a_topology_that_vanished_with_its_clusters(ground: Ground) -> None:
    ground.add(3)
    ground.settle()
    whole = ground.platform.topology.load()
    with ground.zookeeper() as client:
        for part in ("datasets", "clusters"):
            client.delete(f"{ground.settings.zookeeper_root}/{part}", recursive=True)
    for _ in range(2):  # nor does the pass that refused forget what was there
        report = ground.reconcile()
        assert not report.outcomes
        (refusal,) = report.plan.refusals
        assert refusal.scope == "platform"
        assert f"3 shards of dataset {ground.name}, 3 connectors in cluster local" in refusal.reason
    assert ground.task_states(ground.shard_name(0)) == ["RUNNING"]
    ground.platform.topology.import_topology(whole)
    ground.settle()


def test_control_plane_creates_nothing_before_the_agent_has_written_its_leader_file(ground: Ground) -> None:
    ground.add(1)
    ground.settle()
    store = ground.platform.topology
    worker = ground.get(f"/connectors/{ground.shard_name(0)}/status")["tasks"][0]["worker_id"]
    now = datetime.now(UTC)

    def report(synced: int) -> dict[str, Any]:
        return AgentReport(
            connect_worker=worker, connect_url=ground.url(), leader_dir="leaders", pid=1, host="here",
            started=now, reported=now, synced=synced, files=1,
        ).to_document()  # fmt: skip

    registration = store.register_agent("w0", report(0))
    try:
        ground.add(2)
        waiting = ground.reconcile()
        assert not [o for o in waiting.outcomes if isinstance(o.action, CreateConnector)]
        assert any(f"waits for the worker {worker}" in f.text for f in waiting.plan.findings)
        assert [d.reason for d in waiting.health[ground.name].down] == [
            f"waits for the worker {worker}: its agent has not written the leader file yet"
        ]
        registration.update(report(store.load().zxid))
        created = ground.reconcile()
        assert [o.status for o in created.outcomes if isinstance(o.action, CreateConnector)] == ["done"]
    finally:
        registration.close()
    ground.settle()


def test_control_plane_that_loses_its_session_stops_within_a_second(ground: Ground) -> None:
    ground.add(6)
    address = urlsplit(ground.url())
    assert address.hostname is not None and address.port is not None
    lost: list[float] = []
    breaker = WireBreaker((address.hostname, address.port), scheme=address.scheme)
    with ground.zookeeper() as client, breaker as wire:
        ground.platform.topology.put_cluster(replace(ground.clusters["local"], urls=(wire.url,)))

        def lose() -> None:
            # In mid-apply, with calls in flight that no answer comes to.
            assert_eventually(
                lambda: any(ground.get(f"/connectors/{s.name}") for s in ground.shards()), "one is made", 120
            )
            wire.mute = True
            path = f"{ground.settings.zookeeper_root}/control/lock"
            for contender in client.get_children(path):
                client.delete(f"{path}/{contender}")
            lost.append(time.monotonic())

        thread = threading.Thread(target=lose)
        thread.start()
        with open_platform(replace(ground.settings, batch_size=2)) as platform:
            with pytest.raises(LockLost):
                reconciler.reconcile(platform, owner="old", wait_for_lock=60.0)
            stopped = time.monotonic()
        thread.join()
    # A second, and what a loaded machine adds.
    assert stopped - lost[0] < 3.0
    made = {name for s in ground.shards() if ground.get(f"/connectors/{(name := s.name)}")}
    assert len(made) <= 4
    ground.platform.topology.put_cluster(ground.clusters["local"])
    ground.settle()


def test_control_plane_without_zookeeper_changes_nothing_and_says_so(ground: Ground) -> None:
    with (
        open_platform(replace(ground.settings, zookeeper="127.0.0.1:9")) as platform,
        pytest.raises(ZooKeeperUnavailable) as caught,
    ):
        reconciler.reconcile(platform, owner="test")
    assert caught.value.cure


def test_control_plane_refuses_a_stale_plan(ground: Ground) -> None:
    ground.add(2)
    ground.settle()
    ground.call("DELETE", f"/connectors/{ground.shard_name(0)}")
    _, planned = reconciler.plan_pass(ground.platform)
    ground.call("DELETE", f"/connectors/{ground.shard_name(1)}")
    with pytest.raises(PlanStale):
        ground.reconcile(expect=planned.plan.fingerprint)
    assert ground.get(f"/connectors/{ground.shard_name(0)}") is None
    ground.settle()


def test_control_plane_deletes_with_offsets_and_history_and_starts_anew_afterwards(ground: Ground) -> None:
    ground.add(2)
    ground.settle()
    name = ground.shard_name(1)
    assert_eventually(lambda: ground.get(f"/connectors/{name}/offsets")["offsets"], "offsets are committed")
    history = f"{ground.settings.platform}.platform.schema-history.{ground.name}-00001"
    assert history in ground.platform.kafka.topics([history])
    ground.platform.topology.delete_shard(ground.name, "00001")
    report = ground.reconcile()
    assert [o.status for o in report.outcomes if isinstance(o.action, DeleteConnector)] == ["done"]
    assert ground.get(f"/connectors/{name}") is None
    assert_eventually(lambda: history not in ground.platform.kafka.topics([history]), "its history topic is gone")
    assert not [key for key in ground.records() if key.endswith(f"/{name}")]
    ground.platform.connect(ground.clusters["local"]).create(
        name, {"connector.class": "io.debezium.connector.mariadb.MariaDbConnector", **_stopped(ground)}, stopped=True
    )
    assert ground.get(f"/connectors/{name}/offsets")["offsets"] == []
    ground.call("DELETE", f"/connectors/{name}")


def _stopped(ground: Ground) -> dict[str, str]:
    config: dict[str, str] = ground.get(f"/connectors/{ground.shard_name(0)}/config")
    text = json.dumps({key: value for key, value in config.items() if key != "name"})
    found: dict[str, str] = json.loads(text.replace("00000", "00001"))
    return found
