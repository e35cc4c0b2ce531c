"""Processes killed with -9 and paused by SIGSTOP: broker, ZooKeeper, agent, control plane, source."""

from __future__ import annotations

import os
import signal
import time

import pytest

from cdc_platform.model.topology import Address, Engine
from tests.engines import EACH_ENGINE
from tests.faults.conftest import MakeScenario
from tests.faults.scenario import Scenario
from tests.tcp_proxy import TcpProxy
from tests.waiting import assert_eventually

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_faults_broker_killed(assert_recovery: MakeScenario) -> None:
    with assert_recovery("broker: kill -9, back after 5 s") as run:
        run.harness.stack.kill("kafka")
        run.hold(5)
        run.harness.stack.start("kafka", timeout=180)
        run.over()


def test_faults_broker_paused(assert_recovery: MakeScenario) -> None:
    with assert_recovery("broker: paused for 20 s") as run:
        pause(run, "kafka", 20)


def test_faults_zookeeper_killed(assert_recovery: MakeScenario) -> None:
    """Events go on without it; what is asked of it meanwhile is done once it is back."""
    with assert_recovery("ZooKeeper: kill -9, back after 10 s") as run:
        run.harness.stack.kill("zookeeper")
        run.recovered(60)
        run.hold(10)
        run.harness.stack.start("zookeeper")
        run.over()
        assert_leader_change_is_followed(run)


def test_faults_zookeeper_paused(assert_recovery: MakeScenario) -> None:
    with assert_recovery("ZooKeeper: paused for 15 s") as run:
        pause(run, "zookeeper", 15)
        assert_leader_change_is_followed(run)


def test_faults_agents_killed(assert_recovery: MakeScenario) -> None:
    """The leader moves while no agent lives; the files and tasks follow when they are back."""
    assert_recovery_without_agents(assert_recovery, "agents: kill -9, leader moves, back after 5 s", kill=True)


def test_faults_agents_paused(assert_recovery: MakeScenario) -> None:
    assert_recovery_without_agents(assert_recovery, "agents: paused, leader moves, woken after 15 s", kill=False)


def test_faults_control_plane_killed(assert_recovery: MakeScenario) -> None:
    """A connector is deleted by hand while no control plane lives; the next one makes it anew."""
    with assert_recovery("control plane: kill -9, a connector deleted, back after 10 s") as run:
        run.control_plane.kill()
        run.harness.call("DELETE", f"/connectors/{run.harness.shards[0].name}")
        run.hold(10)
        run.control_plane.start()
        run.over()


def test_faults_control_plane_paused(assert_recovery: MakeScenario) -> None:
    """It loses its lock; woken, it must not act under it."""
    with assert_recovery("control plane: paused for 20 s, a connector deleted") as run:
        os.kill(run.control_plane.pid, signal.SIGSTOP)
        run.harness.call("DELETE", f"/connectors/{run.harness.shards[0].name}")
        run.hold(20)
        os.kill(run.control_plane.pid, signal.SIGCONT)
        run.over()


@EACH_ENGINE
def test_faults_source_killed(assert_recovery: MakeScenario, engine: Engine) -> None:
    with assert_recovery(f"{engine}: kill -9, back after 5 s", engine=engine) as run:
        service = primary(run)
        run.harness.stack.kill(service)
        run.hold(5)
        run.harness.stack.start(service)
        run.over()


@EACH_ENGINE
def test_faults_source_paused(assert_recovery: MakeScenario, engine: Engine) -> None:
    with assert_recovery(f"{engine}: paused for 20 s", engine=engine) as run:
        pause(run, primary(run), 20)


def primary(run: Scenario) -> str:
    return run.harness.stack.servers(run.harness.engine)[0]


def pause(run: Scenario, service: str, seconds: float) -> None:
    """SIGSTOP and SIGCONT; Postgres' backends are processes of their own, and all of them stop."""
    run.signal(service, signal.SIGSTOP)
    try:
        run.hold(seconds)
    finally:
        run.signal(service, signal.SIGCONT)
    run.over()


def assert_recovery_without_agents(assert_recovery: MakeScenario, name: str, *, kill: bool) -> None:
    with TcpProxy(("127.0.0.1", 1)) as old, assert_recovery(name, through=old) as run:
        agents = [f"agent-{worker}" for worker in run.harness.stack.workers]
        for agent in agents:
            run.harness.stack.kill(agent, signal.SIGKILL if kill else signal.SIGSTOP)
        run.move(run.harness.sources.primary)
        old.cut()
        run.hold(5 if kill else 15)
        for agent in agents:
            if kill:
                run.harness.stack.start(agent, timeout=120)
            else:
                run.harness.stack.kill(agent, signal.SIGCONT)
        run.over()


def assert_leader_change_is_followed(run: Scenario) -> None:
    """The same server by another name: files and tasks follow."""
    address = run.harness.sources.primary
    run.move(Address("localhost", address.port))
    assert_eventually(
        lambda: all(
            (found := run.harness.leader_of(s)) and found.leader.host == "localhost" for s in run.harness.shards
        ),
        "the leader files name the new leader",
        60,
    )
    since = time.monotonic()
    run.recovered()
    print(f"flowing {time.monotonic() - since:.1f} s after the leader change")
