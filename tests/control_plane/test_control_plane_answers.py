"""What real Connect and ZooKeeper answer is spoiled on the way: 409, 500, silence, halves, other clusters, clocks."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import httpx
import pytest

from cdc_platform.errors import LockLost, ZooKeeperUnavailable
from cdc_platform.model.topology import Address
from cdc_platform.planning.actions import CreateConnector, DeleteConnector, RestartConnector, UpdateConnector
from cdc_platform.reconciler import run_pass as reconciler
from cdc_platform.reconciler.report import ActionOutcome, PassReport
from cdc_platform.wiring import open_platform
from tests.conftest import own_stack
from tests.control_plane.faulty_rest import (
    BROKEN,
    DONE_AND_CUT,
    DONE_AND_SILENT,
    REBALANCE,
    Fault,
    FaultyRest,
    faulty_rest,
)
from tests.control_plane.harness import Harness
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@contextmanager
def spoiled(harness: Harness) -> Iterator[FaultyRest]:
    """The harness's cluster, reached through a wire that spoils answers; at the end through its own again."""
    cluster = harness.clusters["local"]
    with faulty_rest(cluster.urls[0], harness.rest) as rest:
        harness.platform.topology.put_cluster(replace(cluster, urls=(rest.url,)))
        try:
            yield rest
        finally:
            harness.platform.topology.put_cluster(cluster)


def one_pass(harness: Harness, *, timeout: float = 8.0, **more: Any) -> PassReport:
    """A pass of a control plane that waits for an answer so long."""
    with open_platform(replace(harness.settings, connect_timeout=timeout)) as platform:
        return reconciler.reconcile(platform, owner="test", wait_for_lock=60.0, **more)


def drift(harness: Harness) -> None:
    """Something to create, to update and to delete."""
    harness.call("DELETE", f"/connectors/{harness.shard_name(0)}")
    config = harness.get(f"/connectors/{harness.shard_name(1)}/config")
    harness.call("PUT", f"/connectors/{harness.shard_name(1)}/config", json={**config, "max.batch.size": "7"})
    harness.platform.topology.delete_shard(harness.name, "00002")


def of_connectors(report: PassReport) -> list[ActionOutcome]:
    return [o for o in report.outcomes if isinstance(o.action, CreateConnector | UpdateConnector | DeleteConnector)]


def put_right(harness: Harness) -> bool:
    return (
        harness.task_states(harness.shard_name(0)) == ["RUNNING"]
        and harness.get(f"/connectors/{harness.shard_name(1)}/config")["max.batch.size"] != "7"
        and harness.get(f"/connectors/{harness.shard_name(2)}") is None
    )


def test_control_plane_waits_while_connect_says_409(harness: Harness) -> None:
    harness.add(3)
    harness.settle()
    drift(harness)
    with spoiled(harness) as rest:
        rest.first(5, REBALANCE, "POST", "PUT", "DELETE")
        report = one_pass(harness, timeout=30.0)
    assert {o.status for o in of_connectors(report)} == {"done"}
    assert len(of_connectors(report)) == 3
    assert_eventually(lambda: put_right(harness), "all is put right")
    harness.settle()


def test_control_plane_during_409_without_end_fails_that_cluster_only_and_goes_on_later(harness: Harness) -> None:
    harness.add(3)
    harness.settle()
    drift(harness)
    with spoiled(harness) as rest:
        rest.first(10**6, REBALANCE, "POST", "PUT", "DELETE")
        report = one_pass(harness, timeout=4.0)
    assert {o.status for o in of_connectors(report)} <= {"failed", "skipped"}
    assert any("stale configuration" in str(o.error) for o in report.failed)
    harness.settle()
    assert put_right(harness)


@pytest.mark.parametrize("fault", [BROKEN, DONE_AND_SILENT, DONE_AND_CUT], ids=["500", "time-out", "half"])
def test_control_plane_does_each_change_once_whatever_is_answered(harness: Harness, fault: Fault) -> None:
    harness.add(3)
    harness.settle()
    drift(harness)
    with spoiled(harness) as rest:
        rest.first(10**6, fault, "POST", "PUT", "DELETE")
        report = one_pass(harness, timeout=9.0)
        # What must not go out twice did not: the create, the new config, the delete of the connector.
        sent = [c for c in rest.changes if not c.endswith(("/stop", "/offsets"))]
    assert len(sent) == len(set(sent)), sent
    found = {type(o.action): o.status for o in of_connectors(report)}
    if fault.forward:
        # They were done, and that was read back.
        assert found[CreateConnector] == found[UpdateConnector] == "done", report.outcomes
    else:
        assert set(found.values()) <= {"failed", "skipped"}
        assert harness.get(f"/connectors/{harness.shard_name(0)}") is None
    harness.settle()
    assert put_right(harness)
    assert harness.task_states(harness.shard_name(0)) == ["RUNNING"]


def test_control_plane_repeats_a_restart_that_was_not_answered_once_at_most(harness: Harness) -> None:
    shards = harness.add(2)
    harness.settle()
    name = harness.shard_name(0)
    harness.write_leader(replace(shards[0], leader=Address("127.0.0.1", 1)))
    harness.call("POST", f"/connectors/{name}/tasks/0/restart")
    assert_eventually(lambda: harness.task_states(name) == ["FAILED"], "the task fails")
    harness.write_leader(shards[0])
    with spoiled(harness) as rest:
        rest.first(10**6, DONE_AND_SILENT, "POST")
        report = one_pass(harness, timeout=5.0)
        assert len([change for change in rest.changes if "/restart" in change]) == 1
    (outcome,) = (o for o in report.outcomes if isinstance(o.action, RestartConnector))
    assert outcome.status == "failed"
    assert "may have been done" in str(outcome.error)
    # It was: the next pass sees it run and restarts nothing.
    assert_eventually(lambda: harness.task_states(name) == ["RUNNING"], "it runs")
    assert not [o for o in harness.reconcile().outcomes if isinstance(o.action, RestartConnector)]
    harness.settle()


def test_control_plane_does_not_believe_half_a_list_nor_a_500(harness: Harness) -> None:
    harness.add(3)
    harness.settle()
    with spoiled(harness) as rest:
        for fault in (BROKEN, Fault(forward=True, keep=900), Fault(forward=True, body=b'{"a": {"info": {')):
            rest.spoil = lambda method, path, fault=fault: fault if path.startswith("/connectors?") else None  # type: ignore[misc]
            report = one_pass(harness, timeout=4.0)
            assert [r.scope for r in report.plan.refusals] == ["cluster local"]
            assert not of_connectors(report)
        assert rest.changes == []
    harness.settle()


@pytest.mark.plain
def test_control_plane_refuses_a_worker_of_another_kafka_cluster(harness: Harness) -> None:
    harness.add(2)
    harness.settle()
    home = harness.clusters["local"]
    with own_stack(workers=1, mariadb=False, postgres=False) as other:
        theirs = other.cluster().urls
        # Our worker and theirs: ours is believed, theirs is not asked for anything.
        harness.platform.topology.put_cluster(replace(home, urls=(*theirs, *home.urls)))
        report = one_pass(harness)
        assert not report.plan.refusals
        assert not of_connectors(report)
        # Theirs alone: nothing is made there, though it answers that there is no connector at all.
        harness.platform.topology.put_cluster(replace(home, urls=theirs))
        report = one_pass(harness)
        assert not of_connectors(report)
        (refusal,) = report.plan.refusals
        assert refusal.scope == "cluster local"
        assert "belongs to Kafka cluster" in refusal.reason
        assert httpx.get(f"{theirs[0]}/connectors", timeout=30).json() == []
    harness.platform.topology.put_cluster(home)
    harness.settle()


def test_control_plane_creates_while_the_group_really_rebalances(harness: Harness, tmp_path: Path) -> None:
    harness.add(8)
    over = threading.Event()
    joined: list[subprocess.Popen[bytes]] = []

    def come_and_go() -> None:
        """A worker joins the group and is killed, again and again."""
        while not over.is_set():
            with harness.extra_worker(tmp_path) as process:
                joined.append(process)
                over.wait(2)
                process.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        assert_eventually(lambda: joined, "another worker is in the group")
        report = harness.reconcile()
    finally:
        over.set()
        thread.join()
    creates = [o for o in report.outcomes if isinstance(o.action, CreateConnector)]
    assert len(creates) == 8
    assert any(o.status == "done" for o in creates)
    harness.settle()
    names = harness.get("/connectors")
    assert sorted(n for n in names if n.startswith(harness.name)) == [s.name for s in harness.shards()]


def test_control_plane_whose_zookeeper_session_is_lost_in_mid_pass_changes_nothing_more(harness: Harness) -> None:
    harness.add(6)
    host, _, port = harness.settings.zookeeper.partition("/")[0].rpartition(":")
    with TcpProxy((host, int(port))) as wire, spoiled(harness) as rest:
        cut: list[float] = []

        def spoil(method: str, path: str) -> Fault | None:
            if method == "POST" and not cut:
                cut.append(time.monotonic())
                wire.cut()
            return None

        rest.spoil = spoil
        lost_at = 0.0
        with open_platform(replace(harness.settings, zookeeper=wire.address, batch_size=1)) as platform:
            with pytest.raises((LockLost, ZooKeeperUnavailable)):
                reconciler.reconcile(platform, owner="old", wait_for_lock=60.0)
            lost_at = time.monotonic()
            sent = len(rest.changes)
        # Before ZooKeeper gives the lock to another (10 s), not one more change.
        assert lost_at - cut[0] < 12.0
        time.sleep(1.0)
        assert len(rest.changes) == sent < 6
        # Meanwhile another control plane, which has its session, goes on.
        rest.spoil = lambda method, path: None
    harness.settle()
    assert all(harness.task_states(s.name) == ["RUNNING"] for s in harness.shards())


class _Jumped(datetime):
    """This machine's clock, wrong by `by`."""

    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + cls.by


def test_control_plane_survives_a_clock_that_jumps_to_and_fro(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = harness.add(3)
    harness.settle()
    name = harness.shard_name(0)
    harness.write_leader(replace(shards[0], leader=Address("127.0.0.1", 1)))
    harness.call("POST", f"/connectors/{name}/tasks/0/restart")
    assert_eventually(lambda: harness.task_states(name) == ["FAILED"], "the task fails")
    monkeypatch.setattr(sys.modules["cdc_platform.reconciler.observe"], "datetime", _Jumped)
    for days in (400, -400):
        _Jumped.by = timedelta(days=days)
        report = harness.reconcile()
        # The failed one may be restarted once; the others beat, whatever this clock says.
        assert {o.action.name for o in report.outcomes if isinstance(o.action, RestartConnector)} <= {name}
        assert not of_connectors(report)
    _Jumped.by = timedelta()
    harness.reconcile()
    # What was written in the far future does not put the next restart off for a year.
    due = datetime.fromisoformat(harness.records()[f"restart/{name}"]["next_restart"])
    assert due - datetime.now(due.tzinfo) < timedelta(hours=2)
    harness.write_leader(shards[0])
    harness.call("POST", f"/connectors/{name}/tasks/0/restart")
    harness.settle()
